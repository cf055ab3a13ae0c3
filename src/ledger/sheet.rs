//! What one request has used so far, counted by the engine and read by whoever writes it down.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The counts of one request, all of its sequences together. The engine's thread writes, others read.
#[derive(Debug, Default)]
pub struct Sheet {
    prompt: AtomicU64,
    cached: AtomicU64,
    /// Of sequences that have ended.
    settled: AtomicU64,
    /// Of all, as they come.
    generated: AtomicU64,
    closed: AtomicBool,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tokens of the prompt; 0 until a token was generated.
    pub prompt: u64,
    /// Those of them that came from the prefix cache, once a sequence has ended.
    pub cached: u64,
    /// Tokens generated.
    pub completion: u64,
}

impl Sheet {
    /// So many tokens were generated.
    pub fn completion(&self, tokens: u64) {
        self.generated.fetch_add(tokens, Ordering::Relaxed);
    }

    /// A sequence has ended and has used this in all. The prompt counts once, with the first.
    pub fn settle(&self, prompt: usize, cached: usize, completion: usize) {
        self.prompt.fetch_add(prompt as u64, Ordering::Relaxed);
        self.cached.fetch_add(cached as u64, Ordering::Relaxed);
        self.settled.fetch_add(completion as u64, Ordering::Relaxed);
    }

    /// Nothing more will be used.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether nothing more will be used: then [`Self::tally`] is final.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The counts now. `prompt`: what the request's prompt counts as while it is being worked on.
    pub fn tally(&self, prompt: u64) -> Tally {
        let closed = self.is_closed();
        let generated = self.generated.load(Ordering::Relaxed);
        let settled_prompt = self.prompt.load(Ordering::Relaxed);
        Tally {
            prompt: if !closed && settled_prompt == 0 && generated > 0 {
                prompt
            } else {
                settled_prompt
            },
            cached: self.cached.load(Ordering::Relaxed),
            completion: if closed {
                self.settled.load(Ordering::Relaxed)
            } else {
                generated
            },
        }
    }
}
