//! Has certificates read anew on SIGHUP and when their files change.

use tokio::signal::unix::{SignalKind, signal};

use crate::server::Certificates;
use crate::watch::FileWatch;

/// Never returns, unless neither can be heard of.
pub(super) async fn keep_fresh(certificates: Certificates) {
    let files = certificates.files();
    if files.is_empty() {
        return;
    }
    let mut watch = FileWatch::new(&files)
        .inspect_err(|error| {
            tracing::warn!(%error, "changes of certificates are not seen; SIGHUP has them read anew");
        })
        .ok();
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        return;
    };
    loop {
        let changed = async {
            match &mut watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            _ = hangup.recv() => {}
        }
        certificates.reload().await;
    }
}
