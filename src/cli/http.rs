//! Just enough of an HTTP/1.1 client for the demo to talk to its own server: blocking, one request per connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::telemetry::Secret;

/// An answer whose body is still being read.
#[derive(Debug)]
pub(super) struct Response<R = TcpStream> {
    /// Such as `401 Unauthorized`.
    pub status: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// What follows, chunks already joined.
    pub body: BufReader<Body<R>>,
}

/// Posts JSON to `path` on `address`.
///
/// # Errors
/// The connection's, and `InvalidData` for an answer that is not HTTP/1.1.
pub(super) fn post(
    address: SocketAddr,
    path: &str,
    token: Option<&Secret<String>>,
    json: &str,
) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let authorization = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {}\r\n", token.expose())
    });
    let length = json.len();
    stream.write_all(
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\n{authorization}content-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{json}"
        )
        .as_bytes(),
    )?;
    Response::read(stream)
}

impl<R: Read> Response<R> {
    fn read(stream: R) -> io::Result<Self> {
        let mut from = BufReader::new(stream);
        let status_line = line(&mut from)?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .ok_or_else(|| invalid("no HTTP/1.1 status line"))?;
        let mut headers = Vec::new();
        loop {
            let header = line(&mut from)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| invalid("a header without a colon"))?;
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut response = Self {
            status: status.to_owned(),
            headers,
            body: BufReader::new(Body::empty(from)),
        };
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|coding| coding == "chunked");
        let length = response
            .header("content-length")
            .and_then(|length| length.parse().ok());
        let body = response.body.get_mut();
        body.left = if chunked {
            0
        } else {
            length.unwrap_or(u64::MAX)
        };
        body.more_chunks = chunked;
        Ok(response)
    }

    /// The value of the header `name`, which is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// The whole body as text.
    pub(super) fn text(mut self) -> io::Result<String> {
        let mut text = String::new();
        self.body.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The data of each server-sent event, as it arrives.
    pub(super) fn events(self) -> impl Iterator<Item = io::Result<String>> {
        self.body.lines().filter_map(|line| match line {
            Ok(line) => line
                .strip_prefix("data:")
                .map(|data| Ok(data.trim_start().to_owned())),
            Err(error) => Some(Err(error)),
        })
    }
}

/// The bytes of a body, without the frames around its chunks.
#[derive(Debug)]
pub(super) struct Body<R> {
    from: BufReader<R>,
    /// Bytes left of this chunk, or of the body if it has no chunks.
    left: u64,
    more_chunks: bool,
}

impl<R: Read> Body<R> {
    fn empty(from: BufReader<R>) -> Self {
        Self {
            from,
            left: 0,
            more_chunks: false,
        }
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.more_chunks {
            let header = line(&mut self.from)?;
            let size = header.split(';').next().unwrap_or_default().trim();
            self.left =
                u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk without a size"))?;
            self.more_chunks = self.left > 0;
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        let count = self.from.read(&mut into[..most])?;
        if count == 0 && most > 0 && self.left != u64::MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.left != u64::MAX {
            self.left -= count as u64;
        }
        if self.left == 0 && self.more_chunks && count > 0 {
            line(&mut self.from)?;
        }
        Ok(count)
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Longest silence: pings come every few seconds even from a busy server.
const SILENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &str) -> io::Result<Response<&[u8]>> {
        Response::read(bytes.as_bytes())
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let response =
            answer("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 5\r\n\r\nnope!rest").unwrap();
        assert_eq!(response.status, "401 Unauthorized");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        assert_eq!(response.text().unwrap(), "nope!");
    }

    #[test]
    fn chunks_are_joined_and_events_cross_them() {
        let response = answer(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
             8\r\ndata: a\n\r\na\r\n\n: ping\nda\r\nA;x=1\r\nta: [DONE]\r\n2\r\n\n\n\r\n0\r\n\r\n",
        )
        .unwrap();
        let events: Vec<_> = response.events().map(Result::unwrap).collect();
        assert_eq!(events, ["a", "[DONE]"]);
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        let cut = answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").unwrap();
        assert_eq!(cut.text().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let cut = answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab").unwrap();
        assert_eq!(cut.text().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
