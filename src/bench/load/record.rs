//! What is known of one request once it has ended.

use super::RequestFailure;

/// One request. Times are seconds; those of day are since the start of the run.
#[derive(Debug)]
pub struct Record {
    /// Which conversation it belongs to.
    pub conversation: usize,
    /// Its place in the conversation.
    pub turn: usize,
    /// When it should have been sent.
    pub scheduled: f64,
    /// When the client turned to it.
    pub arrival: f64,
    /// When it was sent: after `arrival` where it had to wait for others (`max_concurrency`).
    pub start: f64,
    /// From its start to the first chunk with text.
    pub ttft: f64,
    /// From its start to the last chunk.
    pub latency: f64,
    /// Between chunks with text.
    pub itls: Vec<f64>,
    /// As the server counted, else as intended.
    pub prompt_tokens: u64,
    /// As the server counted; `None` if it does not say.
    pub cached_tokens: Option<u64>,
    /// As the server counted, else the chunks with text.
    pub output_tokens: u64,
    /// Whether the server counted.
    pub has_usage: bool,
    /// Why it counts as failed.
    pub failure: Option<RequestFailure>,
}

impl Record {
    /// How late the client turned to it.
    pub fn lag(&self) -> f64 {
        (self.arrival - self.scheduled).max(0.0)
    }

    /// How long it waited for others to end.
    pub fn queue_time(&self) -> f64 {
        self.start - self.arrival
    }

    /// Seconds per output token after the first; `None` for answers of one token.
    pub fn tpot(&self) -> Option<f64> {
        (self.output_tokens > 1)
            .then(|| (self.latency - self.ttft) / (self.output_tokens - 1) as f64)
    }

    /// When its last chunk came.
    pub fn end(&self) -> f64 {
        self.start + self.latency
    }

    /// When each chunk with text came.
    pub fn chunk_times(&self) -> impl Iterator<Item = f64> {
        let first = self.start + self.ttft;
        let later = self.itls.iter().scan(first, |time, gap| {
            *time += gap;
            Some(*time)
        });
        std::iter::once(first).chain(later)
    }

    /// Output tokens per chunk with text.
    pub fn tokens_per_chunk(&self) -> f64 {
        self.output_tokens as f64 / (self.itls.len() + 1) as f64
    }
}
