//! Tells when files change. Looks at folders, not at files: editors put a new file in the old one's place, and
//! Kubernetes swaps a link beside it, which nobody who holds on to the file itself would hear of.
//!
//! What a file says is the judge: an event is only a reason to look.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Watches some files, present or not, from now on.
#[derive(Debug)]
pub struct FileWatch {
    watcher: RecommendedWatcher,
    /// Something moved in one of the folders.
    stirred: Arc<Notify>,
    /// It did, and we have not looked yet.
    is_due: bool,
    files: Vec<(PathBuf, Content)>,
    folders: HashSet<PathBuf>,
}

/// What a file says, or that it cannot be read.
type Content = Option<[u8; 32]>;

impl FileWatch {
    /// Watches `paths`. Make this before reading the files: what changes in between is then told too.
    ///
    /// # Errors
    /// The operating system's, if a file's folder cannot be watched: it must exist, and go on existing.
    pub fn new(paths: &[PathBuf]) -> io::Result<Self> {
        let stirred = Arc::new(Notify::new());
        let teller = stirred.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change, and we read ourselves. An error may have swallowed one: look.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                teller.notify_one();
            }
        });
        let mut watch = Self {
            watcher: watcher.map_err(into_io)?,
            stirred,
            is_due: false,
            files: Vec::new(),
            folders: HashSet::new(),
        };
        for path in paths {
            watch.follow(folder_of(path))?;
        }
        watch.follow_links(paths);
        watch.files = read_all(paths);
        Ok(watch)
    }

    /// Returns once what at least one of the files says has changed, and a short quiet has followed. A call that is
    /// dropped loses nothing.
    pub async fn changed(&mut self) {
        loop {
            if !self.is_due {
                self.stirred.notified().await;
                self.is_due = true;
            }
            self.quiet().await;
            if self.has_changed().await {
                return;
            }
        }
    }

    /// Waits until nothing has stirred for a moment: files are often written in several steps.
    async fn quiet(&self) {
        let latest = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            let stirred = timeout_at(quiet, self.stirred.notified()).await;
            if stirred.is_err() || Instant::now() >= latest {
                return;
            }
        }
    }

    /// Looks, and remembers what it saw.
    async fn has_changed(&mut self) -> bool {
        let paths: Vec<PathBuf> = self.files.iter().map(|(path, _)| path.clone()).collect();
        // Before reading: a link may point elsewhere now.
        self.follow_links(&paths);
        // Disks may be slow, and the threads that serve connections must not wait for them.
        let Ok(files) = tokio::task::spawn_blocking(move || read_all(&paths)).await else {
            return false;
        };
        self.is_due = false;
        let changed = files != self.files;
        self.files = files;
        changed
    }

    fn follow(&mut self, folder: PathBuf) -> io::Result<()> {
        if !self.folders.contains(&folder) {
            self.watcher
                .watch(&folder, RecursiveMode::NonRecursive)
                .map_err(into_io)?;
            self.folders.insert(folder);
        }
        Ok(())
    }

    /// Watches the folders that the paths lead to through links, which need not be their own.
    fn follow_links(&mut self, paths: &[PathBuf]) {
        // A folder that is gone takes its watch along: a new one of its name must be watched anew.
        self.folders.retain(|folder| folder.exists());
        for path in paths {
            if let Ok(target) = path.canonicalize() {
                // One that cannot be watched loses changes behind a link only.
                let _ = self.follow(folder_of(&target));
            }
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn read_all(paths: &[PathBuf]) -> Vec<(PathBuf, Content)> {
    let read = |path: &PathBuf| (path.clone(), content(path));
    paths.iter().map(read).collect()
}

fn content(path: &Path) -> Content {
    let bytes = std::fs::read(path).ok()?;
    digest(&SHA256, &bytes).as_ref().try_into().ok()
}

fn into_io(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        notify::ErrorKind::PathNotFound => io::ErrorKind::NotFound.into(),
        _ => io::Error::other(error),
    }
}

/// As long as this nothing must stir before we look.
const QUIET: Duration = Duration::from_millis(50);
/// In a folder that never rests we look all the same.
const LONGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// As long as a change may take to be seen before a test fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn sees(watch: &mut FileWatch) {
        tokio::time::timeout(PATIENCE, watch.changed())
            .await
            .expect("the change was not seen");
    }

    fn folder_with(name: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, "one").unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn a_file_written_anew_in_place_is_seen() {
        let (_folder, path) = folder_with("policy.toml");
        let mut watch = FileWatch::new(std::slice::from_ref(&path)).unwrap();
        fs::write(&path, "two").unwrap();
        sees(&mut watch).await;
        fs::write(&path, "six").unwrap();
        sees(&mut watch).await;
    }

    #[tokio::test]
    async fn a_file_renamed_over_it_is_seen_each_time() {
        let (folder, path) = folder_with("policy.toml");
        let mut watch = FileWatch::new(std::slice::from_ref(&path)).unwrap();
        for text in ["two", "three"] {
            let new = folder.path().join(".policy.toml.swp");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
            sees(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn a_link_swapped_as_kubernetes_does_is_seen_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let publish = |version: &str| {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tls.crt"), version).unwrap();
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        publish("..1");
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        let mut watch = FileWatch::new(&[at("tls.crt")]).unwrap();
        for version in ["..2", "..3"] {
            publish(version);
            sees(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn a_change_behind_a_link_into_another_folder_is_seen() {
        let (_elsewhere, target) = folder_with("real.toml");
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("policy.toml");
        symlink(&target, &link).unwrap();
        let mut watch = FileWatch::new(&[link]).unwrap();
        fs::write(&target, "two").unwrap();
        sees(&mut watch).await;
    }

    #[tokio::test]
    async fn a_file_that_comes_and_goes_is_seen() {
        let (_folder, path) = folder_with("policy.toml");
        fs::remove_file(&path).unwrap();
        let mut watch = FileWatch::new(std::slice::from_ref(&path)).unwrap();
        fs::write(&path, "two").unwrap();
        sees(&mut watch).await;
        fs::remove_file(&path).unwrap();
        sees(&mut watch).await;
    }

    #[tokio::test]
    async fn what_leaves_the_words_alone_is_no_change() {
        let (folder, path) = folder_with("policy.toml");
        let mut watch = FileWatch::new(std::slice::from_ref(&path)).unwrap();
        fs::write(folder.path().join("other.toml"), "two").unwrap();
        fs::write(&path, "one").unwrap();
        assert!(!watch.has_changed().await);
    }

    #[tokio::test]
    async fn a_dropped_call_loses_no_change() {
        let (_folder, path) = folder_with("policy.toml");
        let mut watch = FileWatch::new(std::slice::from_ref(&path)).unwrap();
        fs::write(&path, "two").unwrap();
        // It has heard of the change, and is dropped in the quiet after it.
        watch.stirred.notified().await;
        watch.is_due = true;
        let dropped = tokio::time::timeout(Duration::ZERO, watch.changed()).await;
        assert!(dropped.is_err());
        sees(&mut watch).await;
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let error = FileWatch::new(&[PathBuf::from("/nowhere/policy.toml")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
