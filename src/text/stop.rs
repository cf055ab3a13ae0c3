//! Finds stop strings in streamed text and holds back what could still become one.

/// Finds stop strings in streamed text and holds back what could still become one.
///
/// The match that ends first wins, as if the text came letter by letter; of several that end together, the longest.
/// So the outcome does not depend on how the text was cut into pushes. Work and memory are linear in the text and in
/// the stop strings, whatever they are: each letter moves each stop's matcher once (Knuth, Morris, Pratt).
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<Matcher>,
    /// The longest tail of the text so far that begins a stop string.
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Watches for any of `stops`; empty strings are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops
            .into_iter()
            .filter(|stop| !stop.is_empty())
            .map(Matcher::new)
            .collect();
        Self {
            stops,
            held: String::new(),
            stopped: false,
        }
    }

    /// Adds text; returns what may be shown and whether a stop string was found (then nothing after it is shown).
    ///
    /// After a match, `stopped` stays true and `text` empty.
    pub fn push(&mut self, text: &str) -> Released {
        if self.stopped {
            return Released {
                text: String::new(),
                stopped: true,
            };
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (offset, byte) in text.bytes().enumerate() {
            let mut matched = 0;
            for stop in &mut self.stops {
                if stop.advance(byte) {
                    matched = matched.max(stop.text.len());
                }
            }
            if matched > 0 {
                // The matched bytes are all in `held`: until its last byte came, the match was a stop's beginning.
                self.held.truncate(before + offset + 1 - matched);
                self.stopped = true;
                return Released {
                    text: std::mem::take(&mut self.held),
                    stopped: true,
                };
            }
        }
        let held = self
            .stops
            .iter()
            .map(|stop| stop.matched)
            .max()
            .unwrap_or(0);
        // A stop string begins with a whole character and `held` ends with one, so the cut lies between two.
        let tail = self.held.split_off(self.held.len() - held);
        Released {
            text: std::mem::replace(&mut self.held, tail),
            stopped: false,
        }
    }

    /// What was held back, once no more text comes; nothing after a match.
    pub fn finish(self) -> String {
        self.held
    }
}

/// Text that may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// What the caller may see now; maybe empty.
    pub text: String,
    /// A stop string was found: the completion is over.
    pub stopped: bool,
}

/// How much of one stop string the text so far ends with.
#[derive(Debug)]
struct Matcher {
    text: Box<[u8]>,
    /// `borders[n]`: length of the longest beginning of `text[..=n]` that is also its end, itself excluded.
    borders: Box<[usize]>,
    matched: usize,
}

impl Matcher {
    fn new(stop: String) -> Self {
        let text: Box<[u8]> = stop.into_bytes().into();
        let mut borders = vec![0; text.len()];
        let mut length = 0;
        for n in 1..text.len() {
            while length > 0 && text[length] != text[n] {
                length = borders[length - 1];
            }
            if text[length] == text[n] {
                length += 1;
            }
            borders[n] = length;
        }
        Self {
            text,
            borders: borders.into(),
            matched: 0,
        }
    }

    /// Adds one byte; true if the text now ends with the whole stop string. Not to be called after that.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        if self.text[self.matched] == byte {
            self.matched += 1;
        }
        self.matched == self.text.len()
    }
}

#[cfg(test)]
mod tests;
