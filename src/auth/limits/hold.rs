//! What one open request holds of its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::Measure;

/// One limit that binds a request.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    /// Where its counter is.
    pub(super) at: usize,
    pub(super) measure: Measure,
    pub(super) most: u64,
    /// Whose use is counted, in a word.
    pub(super) per: &'static str,
}

/// What the engine's thread counts without a lock. All else about a request is in [`Held`].
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Tokens that were taken from the counters and not used yet.
    left: AtomicI64,
    /// Sequences that have not ended: each has one of `left` for its next token.
    open: AtomicI64,
    /// Tokens of the prompt that are not counted as used yet.
    prompt: AtomicI64,
    /// Everything that the request can come to is taken already, or nothing counts its tokens.
    whole: AtomicBool,
}

impl Hold {
    /// Uses a token, and the prompt with the first; whether there is one more for each open sequence.
    pub(super) fn charge(&self) -> bool {
        // Loaded before it is swapped: a load is cheap, and it is done for every token.
        if self.prompt.load(Ordering::Relaxed) > 0 {
            let prompt = self.prompt.swap(0, Ordering::Relaxed);
            self.left.fetch_sub(prompt, Ordering::Relaxed);
        }
        let left = self.left.fetch_sub(1, Ordering::Relaxed) - 1;
        self.whole.load(Ordering::Relaxed) || left >= self.open.load(Ordering::Relaxed)
    }

    pub(super) fn left(&self) -> i64 {
        self.left.load(Ordering::Relaxed)
    }

    fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    fn prompt(&self) -> i64 {
        self.prompt.load(Ordering::Relaxed)
    }
}

/// The rest of it, under the lock of the counters.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) hold: Arc<Hold>,
    pub(super) bounds: Arc<[Bound]>,
    /// Places of concurrent sequences.
    pub(super) slots: u64,
    reserved: bool,
    /// Tokens taken so far, less those that were given back.
    granted: u64,
    /// Tokens that it can come to.
    ceiling: u64,
    /// Tokens that one completion can come to.
    max_tokens: u64,
    explicit: bool,
    /// Tokens of sequences that have ended.
    settled: u64,
}

impl Held {
    /// What an admitted request holds: one place, no tokens.
    pub(super) fn new(bounds: Arc<[Bound]>) -> Self {
        let hold = Hold::default();
        hold.open.store(1, Ordering::Relaxed);
        let counts_tokens = bounds.iter().any(Bound::is_of_tokens);
        hold.whole.store(!counts_tokens, Ordering::Relaxed);
        Self {
            hold: Arc::new(hold),
            bounds,
            slots: 1,
            reserved: false,
            granted: 0,
            ceiling: u64::MAX,
            max_tokens: 0,
            explicit: false,
            settled: 0,
        }
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// It will have `n` sequences, and come to so much at most.
    pub(super) fn begin(&mut self, prompt: u64, n: u64, max_tokens: u64, explicit: bool) {
        let completions = max_tokens.saturating_mul(n);
        self.reserved = true;
        self.slots = n;
        self.ceiling = prompt.saturating_add(completions);
        self.max_tokens = max_tokens;
        self.explicit = explicit;
        self.hold.open.store(signed(n), Ordering::Relaxed);
        self.hold.prompt.store(signed(prompt), Ordering::Relaxed);
    }

    /// So many tokens more were taken for it.
    pub(super) fn grant(&mut self, tokens: u64) {
        self.granted = self.granted.saturating_add(tokens);
        self.hold.left.fetch_add(signed(tokens), Ordering::Relaxed);
        self.note_whole();
    }

    /// Tokens that its next step lacks, and those that it can still want.
    pub(super) fn lacks(&self) -> (u64, u64) {
        let lack = self.hold.open() - self.hold.left();
        let room = self.ceiling.saturating_sub(self.granted);
        (lack.try_into().unwrap_or(0), room)
    }

    /// One of its sequences has ended after `completion` tokens, and has used `used` in all. Returns what nobody needs
    /// any more.
    pub(super) fn settle(&mut self, completion: u64, used: u64) -> u64 {
        self.settled = self.settled.saturating_add(used);
        self.slots = self.slots.saturating_sub(1);
        let open = (self.hold.open() - 1).max(0);
        self.hold.open.store(open, Ordering::Relaxed);
        if !self.reserved {
            return 0;
        }
        self.ceiling -= self.max_tokens.saturating_sub(completion).min(self.ceiling);
        let left = self.hold.left();
        let mut spare = signed(self.granted.saturating_sub(self.ceiling));
        if !self.explicit {
            let slices = open.saturating_mul(signed(SLICE));
            spare = spare.max(left - self.hold.prompt() - slices);
        }
        let spare = spare.clamp(0, left.max(0));
        self.hold.left.fetch_sub(spare, Ordering::Relaxed);
        let spare = spare.unsigned_abs();
        self.granted = self.granted.saturating_sub(spare);
        self.note_whole();
        spare
    }

    /// The end: what was taken and not used, or, negative, what was used and not taken.
    pub(super) fn close(&self) -> i64 {
        let granted = signed(self.granted);
        let charged = granted - self.hold.left();
        // What sequences report at their ends is what counts. Where one ended without a report, what it was charged.
        granted - charged.max(signed(self.settled))
    }

    /// Not for ever: what a sequence that has ended gives back may be what another could come to need.
    fn note_whole(&self) {
        if self.bounds.iter().any(Bound::is_of_tokens) {
            let whole = self.granted >= self.ceiling;
            self.hold.whole.store(whole, Ordering::Relaxed);
        }
    }
}

impl Bound {
    /// Whether it counts tokens.
    pub(super) fn is_of_tokens(&self) -> bool {
        match self.measure {
            Measure::RequestsPerMinute | Measure::ConcurrentSequences => false,
            Measure::TokensPerMinute | Measure::TokensPerDay | Measure::TokensPerMonth => true,
        }
    }
}

pub(super) fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

/// Tokens taken at a time for a completion whose length nobody has named: few enough that a budget is not locked up by
/// short answers, enough that the lock is rarely taken.
pub(super) const SLICE: u64 = 256;
