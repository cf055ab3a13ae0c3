//! Ends a connection whose other end has stopped taking what is sent.
//!
//! A client that asks for a stream and does not read it would otherwise hold its sequence, its KV blocks and its
//! connection for as long as it likes, and the server's shutdown too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A socket on which a write that makes no progress for some time is an error.
#[derive(Debug)]
pub(super) struct Patient<S> {
    socket: S,
    patience: Duration,
    /// Armed while something waits to be written.
    alarm: Pin<Box<Sleep>>,
    is_armed: bool,
}

impl<S> Patient<S> {
    /// Waits at most `patience` for each bit of progress.
    pub(super) fn new(socket: S, patience: Duration) -> Self {
        Self {
            socket,
            patience,
            alarm: Box::pin(sleep(patience)),
            is_armed: false,
        }
    }

    /// Passes on what a write came to. One that must wait gets a time by which it is over.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_armed = false;
            return written;
        }
        if !self.is_armed {
            self.is_armed = true;
            let over = Instant::now() + self.patience;
            self.alarm.as_mut().reset(over);
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other end takes nothing of what is sent",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.watch(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.socket).poll_shutdown(context);
        self.watch(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_is_over_after_its_patience() {
        let (ours, _theirs) = duplex(8);
        let mut ours = Patient::new(ours, MINUTE);
        let began = Instant::now();
        let error = ours.write_all(b"more than eight").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_bit_of_progress_starts_the_wait_anew() {
        let (ours, mut theirs) = duplex(1);
        let mut ours = Patient::new(ours, MINUTE);
        let began = Instant::now();
        let reads = async {
            for _ in 0..5 {
                sleep(MINUTE - Duration::from_secs(1)).await;
                theirs.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(b"slow"), reads);
        written.unwrap();
        assert_eq!(began.elapsed(), (MINUTE - Duration::from_secs(1)) * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_while_nothing_is_to_be_written_is_no_fault() {
        let (ours, mut theirs) = duplex(8);
        let mut ours = Patient::new(ours, MINUTE);
        ours.write_all(b"one").await.unwrap();
        sleep(MINUTE * 10).await;
        ours.write_all(b"two").await.unwrap();
        let mut got = [0; 6];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"onetwo");
    }
}
