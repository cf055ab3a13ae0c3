//! HTTP/1.1 connections, kept open and used again.
//!
//! A connection is driven by the task that reads its answer, not by one of its own: with a task each, every chunk
//! would wake two tasks, and the client shares its cores with the server that it measures.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{RequestFailure, Target};

/// Connections that wait for their next request.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    /// The connection that was used last, if it still stands; else a new one.
    ///
    /// # Errors
    /// If there is no connection to be had.
    pub(super) async fn take(&self, target: &Target) -> Result<Connection, RequestFailure> {
        loop {
            let idle = self.idle().pop();
            let Some(mut connection) = idle else {
                return Connection::open(target).await;
            };
            // Servers close connections that were idle for long; that is noticed here.
            if connection.is_ready().await {
                return Ok(connection);
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn give_back(&self, mut connection: Connection) {
        connection.is_used = true;
        self.idle().push(connection);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection. Dropping it closes it, which is how a client says that it wants no more.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    /// It has answered before, so that the server may have closed it by now.
    is_used: bool,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self, RequestFailure> {
        let stream = connect(target).await.map_err(RequestFailure::Connect)?;
        let handshake = |error: &dyn std::error::Error| RequestFailure::Handshake(chain(error));
        let stream: Box<dyn Duplex> = match &target.tls {
            None => Box::new(stream),
            Some((connector, name)) => {
                let secured = connector.connect(name.clone(), stream).await;
                Box::new(secured.map_err(|error| handshake(&error))?)
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| handshake(&error))?;
        // What ends a connection is told to whoever waits for its answer.
        let driver = Driver(Some(Box::pin(async move { drop(connection.await) })));
        Ok(Self {
            sender,
            driver,
            is_used: false,
        })
    }

    async fn is_ready(&mut self) -> bool {
        let Self { sender, driver, .. } = self;
        driver.drive(sender.ready()).await.is_ok()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// If the connection ends first.
    pub(super) async fn send(
        &mut self,
        target: &Target,
        method: Method,
        body: Bytes,
    ) -> Result<Response<Incoming>, RequestFailure> {
        let request = |body| {
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = method.clone();
            *request.uri_mut() = target.uri.clone();
            *request.headers_mut() = target.headers.clone();
            request
        };
        let Self { sender, driver, .. } = self;
        let sent = driver
            .drive(sender.send_request(request(body.clone())))
            .await;
        match sent {
            // The server closed it at the very moment; the request has not been read.
            Err(error) if error.is_canceled() && self.is_used => {
                *self = Self::open(target).await?;
                let Self { sender, driver, .. } = self;
                let sent = driver.drive(sender.send_request(request(body))).await;
                sent.map_err(|error| broken(&error))
            }
            sent => sent.map_err(|error| broken(&error)),
        }
    }

    /// Waits for `work`, which reads an answer of this connection, while keeping the connection going.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.driver.drive(work).await
    }
}

/// What moves bytes, until the connection has ended.
struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.advance(context);
            work.as_mut().poll(context)
        })
        .await
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.0
            && driver.as_mut().poll(context) == Poll::Ready(())
        {
            self.0 = None;
        }
    }
}

/// A stream of bytes in both directions.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The first address that takes a connection.
async fn connect(target: &Target) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &target.addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The failure that an error of a connection is.
pub(super) fn broken(error: &hyper::Error) -> RequestFailure {
    RequestFailure::Broken(chain(error))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
