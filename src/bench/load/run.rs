//! A run: who sends which request when, until all have ended or somebody has seen enough.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::ask::{Answer, ask_within, seconds};
use super::body::{Message, RequestFields};
use super::connection::Pool;
use super::probe;
use super::workload::{Conversation, Turn};
use super::{Arrivals, BenchError, Calibration, Progress, Record, Target, Workload};

/// What a run does.
#[derive(Clone)]
pub struct Options {
    /// Whom it asks.
    pub target: Target,
    /// How it asks.
    pub fields: RequestFields,
    /// What it asks.
    pub workload: Workload,
    /// When it asks.
    pub load: Load,
    /// Requests; conversations where there are several turns.
    pub num_prompts: usize,
    /// Requests that come first and are not measured.
    pub num_warmups: usize,
    /// For prompts, lengths and arrivals.
    pub seed: u64,
    /// Between an answer and the next turn.
    pub think_time: Duration,
    /// Longest life of a request.
    pub timeout: Duration,
    /// What a word costs, if that is known; asked otherwise.
    pub calibration: Option<Calibration>,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Open loop: they come when they come.
    pub arrivals: Arrivals,
    /// Closed loop if the rate is infinite: the next is sent when one has ended. With a finite rate, an upper bound.
    pub max_concurrency: Option<usize>,
}

/// What has happened.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every request that ended, in no order.
    pub records: Vec<Record>,
    /// Seconds from the first request's turn to the last one's end.
    pub duration: f64,
    /// Requests that were under way when the run was stopped.
    pub in_flight: usize,
    /// Requests that were never sent: the run was stopped, or an earlier turn failed.
    pub unsent: usize,
    /// Somebody stopped the run.
    pub is_interrupted: bool,
    /// What a word cost.
    pub calibration: Option<Calibration>,
    /// Processor time that this process took during the run.
    pub cpu_seconds: f64,
}

/// Asks until every request has ended or `stop` completes.
///
/// # Errors
/// [`BenchError`] if the very first request fails. Later failures are results.
pub async fn run(
    options: Options,
    progress: Arc<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<Outcome, BenchError> {
    raise_file_limit();
    let mut stop = pin!(stop);
    let mut runner = Runner::new(options, progress);
    let calibration = tokio::select! {
        calibration = runner.prepare() => calibration?,
        () = &mut stop => {
            return Ok(Outcome { is_interrupted: true, ..Outcome::default() });
        }
    };
    runner.fill(&calibration);

    let total = runner.conversations.len() * runner.options.workload.turns();
    runner.progress.begin(total);
    let (records, mut ended) = unbounded_channel();
    let tasks = Tasks::default();
    let cpu = cpu_time();
    runner.origin = Instant::now();
    let runner = Arc::new(runner);
    start(&runner, records, &tasks);

    let mut outcome = Outcome {
        calibration: Some(calibration),
        ..Outcome::default()
    };
    loop {
        tokio::select! {
            record = ended.recv() => match record {
                Some(record) => outcome.records.push(record),
                None => break,
            },
            () = &mut stop => {
                outcome.is_interrupted = true;
                tasks.stop();
                break;
            }
        }
    }
    outcome.duration = runner.now();
    outcome.cpu_seconds = cpu_time() - cpu;
    while let Ok(record) = ended.try_recv() {
        outcome.records.push(record);
    }
    let started = runner.progress.snapshot().started as usize;
    outcome.in_flight = started.saturating_sub(outcome.records.len());
    outcome.unsent = total.saturating_sub(started);
    Ok(outcome)
}

/// What all tasks of a run share.
struct Runner {
    options: Options,
    pool: Pool,
    progress: Arc<Progress>,
    conversations: Vec<Conversation>,
    /// The first request of each conversation, ready to send.
    bodies: Vec<Bytes>,
    slots: Option<Semaphore>,
    origin: Instant,
}

impl Runner {
    fn new(options: Options, progress: Arc<Progress>) -> Self {
        Self {
            slots: options.load.max_concurrency.map(Semaphore::new),
            options,
            pool: Pool::default(),
            progress,
            conversations: Vec::new(),
            bodies: Vec::new(),
            origin: Instant::now(),
        }
    }

    /// Finds out what a word costs, and warms up.
    async fn prepare(&self) -> Result<Calibration, BenchError> {
        let Options { target, fields, .. } = &self.options;
        let calibration = match self.options.calibration {
            Some(known) => {
                probe::check(target, &self.pool, fields).await?;
                known
            }
            None => probe::calibrate(target, &self.pool, fields).await?,
        };
        let seed = self.options.seed ^ WARMUP_SEED;
        let count = self.options.num_warmups;
        let prompts = self
            .options
            .workload
            .conversations(count, &calibration, seed);
        let at_once = self.options.load.max_concurrency.unwrap_or(count);
        for batch in prompts.chunks(at_once.max(1)) {
            futures_util::future::join_all(batch.iter().map(async |conversation| {
                let turn = &conversation.turns[0];
                let body = fields.body(&[Message::user(turn.text.clone())], turn.max_tokens);
                self.send(body, false, || ()).await
            }))
            .await;
        }
        Ok(calibration)
    }

    /// Makes every prompt and body before the first is sent.
    fn fill(&mut self, calibration: &Calibration) {
        let Options {
            workload, fields, ..
        } = &self.options;
        let mut conversations =
            workload.conversations(self.options.num_prompts, calibration, self.options.seed);
        self.bodies = conversations
            .iter_mut()
            .map(|conversation| {
                let is_alone = conversation.turns.len() == 1;
                let turn = &mut conversation.turns[0];
                let text = if is_alone {
                    // No later turn will quote it.
                    std::mem::take(&mut turn.text)
                } else {
                    turn.text.clone()
                };
                fields.body(&[Message::user(text)], turn.max_tokens)
            })
            .collect();
        self.conversations = conversations;
    }

    fn now(&self) -> f64 {
        seconds(self.origin.elapsed())
    }

    async fn send(&self, body: Bytes, keep_text: bool, on_text: impl FnMut()) -> Answer {
        let limit = self.options.timeout;
        ask_within(
            limit,
            &self.options.target,
            &self.pool,
            body,
            keep_text,
            on_text,
        )
        .await
    }

    /// Sends the turns of one conversation, one after the other.
    async fn hold(&self, index: usize, due: Option<f64>, records: &UnboundedSender<Record>) {
        let mut arrival = self.now();
        let mut scheduled = due.unwrap_or(arrival);
        // Fails only if the semaphore were closed, which nobody does.
        let _slot = match &self.slots {
            Some(slots) => slots.acquire().await.ok(),
            None => None,
        };
        let turns = &self.conversations[index].turns;
        let is_long = turns.len() > 1;
        let mut history = Vec::new();
        for (place, turn) in turns.iter().enumerate() {
            if is_long {
                history.push(Message::user(turn.text.clone()));
            }
            let body = if place == 0 {
                self.bodies[index].clone()
            } else {
                self.options.fields.body(&history, turn.max_tokens)
            };
            if place > 0 {
                let think_time = self.options.think_time;
                scheduled = self.now() + seconds(think_time);
                sleep(think_time).await;
                arrival = self.now();
            }
            self.progress.start();
            let answer = self.send(body, is_long, || self.progress.chunk()).await;
            self.progress.end(answer.failure.is_none());
            let is_good = answer.failure.is_none();
            if is_long {
                history.push(Message::assistant(answer.text.clone()));
            }
            let mut record = self.record(answer, turn, place == 0);
            record.conversation = index;
            record.turn = place;
            record.scheduled = scheduled;
            record.arrival = arrival;
            // Nobody listens any more if the run was stopped.
            let _ = records.send(record);
            if !is_good {
                return;
            }
        }
    }

    fn record(&self, answer: Answer, turn: &Turn, is_first: bool) -> Record {
        let since_start = |at: Option<Instant>| at.map_or(0.0, |at| seconds(at - answer.start));
        let usage = answer.usage;
        let chunks = answer.gaps.len() as u64 + u64::from(answer.first.is_some());
        Record {
            conversation: 0,
            turn: 0,
            scheduled: 0.0,
            arrival: 0.0,
            start: seconds(answer.start.saturating_duration_since(self.origin)),
            ttft: since_start(answer.first),
            latency: since_start(answer.last),
            prompt_tokens: usage.map_or_else(
                || if is_first { u64::from(turn.input) } else { 0 },
                |usage| usage.prompt_tokens,
            ),
            cached_tokens: usage.and_then(|usage| usage.cached_tokens()),
            output_tokens: usage.map_or(chunks, |usage| usage.completion_tokens),
            has_usage: usage.is_some(),
            itls: answer.gaps,
            failure: answer.failure,
        }
    }
}

/// Sets off the tasks of a run. They hold `records` until the last has ended.
fn start(runner: &Arc<Runner>, records: UnboundedSender<Record>, tasks: &Tasks) {
    let Load {
        arrivals,
        max_concurrency,
    } = runner.options.load;
    let count = runner.conversations.len();
    match max_concurrency {
        Some(at_once) if !arrivals.is_paced() => {
            let next = Arc::new(AtomicUsize::new(0));
            for _ in 0..at_once.min(count) {
                let (runner, records, next) = (runner.clone(), records.clone(), next.clone());
                tasks.spawn(&Handle::current(), async move {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            return;
                        }
                        runner.hold(index, None, &records).await;
                    }
                });
            }
        }
        _ => {
            let times = arrivals.times(count, runner.options.seed);
            let (runner, tasks, handle) = (runner.clone(), tasks.clone(), Handle::current());
            // A thread of its own: timers of the runtime are good to a millisecond, and late when it is busy.
            thread::spawn(move || {
                for (index, due) in times.into_iter().enumerate() {
                    let due_at = runner.origin + Duration::from_secs_f64(due);
                    thread::sleep(due_at.saturating_duration_since(Instant::now()));
                    let (runner, records) = (runner.clone(), records.clone());
                    let is_stopped = !tasks.spawn(&handle, async move {
                        runner.hold(index, Some(due), &records).await;
                    });
                    if is_stopped {
                        return;
                    }
                }
            });
        }
    }
}

/// The tasks of a run; `None` once it was stopped.
#[derive(Clone)]
struct Tasks(Arc<Mutex<Option<Vec<AbortHandle>>>>);

impl Default for Tasks {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Tasks {
    /// Starts a task, unless the run was stopped.
    fn spawn(&self, handle: &Handle, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tasks) = tasks.as_mut() else {
            return false;
        };
        tasks.push(handle.spawn(task).abort_handle());
        true
    }

    fn stop(&self) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        tasks.into_iter().flatten().for_each(|task| task.abort());
    }
}

/// As many open files as this process may have: each stream is one.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, connections will say so.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Makes the prompts of the warm-up different from those that are measured.
const WARMUP_SEED: u64 = 0x5741_524d_5550;
