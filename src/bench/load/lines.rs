//! Splits a body that comes in pieces into lines, without copying the lines that come whole.

use memchr::memchr_iter;

/// Keeps the beginning of a line until its end has come.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

/// A line has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Hands each line that ends in `piece` to `hear`, without its `\n` or `\r\n`.
    ///
    /// # Errors
    /// If a line exceeds 16 MiB: whatever this is, it is no event stream.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        mut hear: impl FnMut(&[u8]),
    ) -> Result<(), TooLong> {
        let mut from = 0;
        for end in memchr_iter(b'\n', piece) {
            let line = &piece[from..end];
            if self.begun.is_empty() {
                hear(without_return(line));
            } else {
                self.begun.extend_from_slice(line);
                hear(without_return(&self.begun));
                self.begun.clear();
            }
            from = end + 1;
        }
        self.begun.extend_from_slice(&piece[from..]);
        if self.begun.len() > MAX_LINE {
            return Err(TooLong);
        }
        Ok(())
    }

    /// What came after the last line end.
    pub(super) fn rest(&self) -> &[u8] {
        without_return(&self.begun)
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

const MAX_LINE: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b": ping\n\ndata: {\"a\":\"\xc3\xa9\"}\r\n\r\ndata: [DONE]\n\nno end";

    fn heard(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut lines = Lines::default();
        let mut heard = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| heard.push(line.to_vec())).unwrap();
        }
        (heard, lines.rest().to_vec())
    }

    #[test]
    fn lines_are_the_same_wherever_the_stream_is_cut() {
        let whole = heard(&[STREAM]);
        let wanted: [&[u8]; 6] = [
            b": ping",
            b"",
            b"data: {\"a\":\"\xc3\xa9\"}",
            b"",
            b"data: [DONE]",
            b"",
        ];
        assert_eq!(whole.0, wanted);
        assert_eq!(whole.1, b"no end");
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(heard(&pieces), whole, "cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(heard(&bytes), whole);
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; MAX_LINE];
        assert_eq!(lines.feed(&piece, |_| ()), Ok(()));
        assert_eq!(lines.feed(b"x", |_| ()), Err(TooLong));
    }
}
