//! What can be typed after `mixgate bench serve`, and what is true then.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::bench::load::{
    Arrivals, Calibration, Goals, LengthKind, Lengths, Load, RampUp, Shape, Workload,
};
use crate::cli::Failure;

/// As it was typed.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct Typed {
    /// The server; its own path, such as /v1, may be given
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", alias = "base-url", help_heading = SERVER)]
    pub url: String,
    /// Where to ask: a path that ends in chat/completions or completions
    #[arg(long, value_name = "PATH", default_value = "/v1/chat/completions", help_heading = SERVER, hide_short_help = true)]
    pub endpoint: String,
    /// The model's name; without it, the first that the server lists
    #[arg(long, value_name = "NAME", help_heading = SERVER)]
    pub model: Option<String>,
    /// A file with the bearer token, or - for stdin; without it, MIXGATE_BENCH_TOKEN
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub token_file: Option<PathBuf>,

    /// Requests; with --workload multi-turn, conversations
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one, help_heading = LOAD)]
    pub num_prompts: usize,
    /// Requests per second, or inf for all at once
    #[arg(long, value_name = "R", default_value = "inf", value_parser = positive, help_heading = LOAD)]
    pub request_rate: f64,
    /// Requests under way at once; alone, the next is sent when one has ended
    #[arg(long, value_name = "C", value_parser = at_least_one, help_heading = LOAD)]
    pub max_concurrency: Option<usize>,
    /// Shape of the gamma distribution of gaps: 1 is Poisson, less is burstier, inf is a metronome
    #[arg(long, value_name = "B", default_value = "1", value_parser = positive, help_heading = LOAD, hide_short_help = true)]
    pub burstiness: f64,
    /// Change the rate from the first request to the last: linear:1:20 or exponential:1:20
    #[arg(long, value_name = "HOW:FROM:TO", value_parser = ramp_up, conflicts_with = "request_rate", help_heading = LOAD, hide_short_help = true)]
    pub ramp_up: Option<RampUp>,
    /// Requests that come first and are not measured
    #[arg(long, value_name = "W", default_value_t = 0, help_heading = LOAD, hide_short_help = true)]
    pub num_warmups: usize,
    /// For prompts, lengths and arrival times: the same seed makes the same run
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = LOAD, hide_short_help = true)]
    pub seed: u64,
    /// Give a request up after so many seconds
    #[arg(long, value_name = "S", default_value = "3600", value_parser = positive, help_heading = LOAD, hide_short_help = true)]
    pub timeout: f64,
    /// Fail if the client sends its requests later than so many milliseconds (99th percentile, open loop)
    #[arg(long, value_name = "MS", default_value = "5", value_parser = positive, help_heading = LOAD, hide_short_help = true)]
    pub max_send_lag: f64,

    /// How prompts are related
    #[arg(long, value_enum, default_value = "random", alias = "dataset-name", help_heading = PROMPTS)]
    pub workload: WorkloadName,
    /// Tokens of a prompt; after the prefix, or of each user message
    #[arg(long, value_name = "N", default_value_t = 512, alias = "random-input-len", help_heading = PROMPTS)]
    pub input_len: u32,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 128, alias = "random-output-len", help_heading = PROMPTS)]
    pub output_len: u32,
    /// How lengths are spread [default: fixed; uniform with --range-ratio]
    #[arg(long, value_enum, help_heading = PROMPTS, hide_short_help = true)]
    pub lengths: Option<LengthsName>,
    /// Uniform lengths from (1 - ratio) to (1 + ratio) times the given ones
    #[arg(long, value_name = "RATIO", alias = "random-range-ratio", help_heading = PROMPTS, hide_short_help = true)]
    pub range_ratio: Option<f64>,
    /// Tokens of a shared prefix [default: 256]
    #[arg(long, value_name = "N", help_heading = PROMPTS, hide_short_help = true)]
    pub prefix_len: Option<u32>,
    /// Prompts that share one prefix [default: 10]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = PROMPTS, hide_short_help = true)]
    pub group_size: Option<usize>,
    /// Requests of a conversation [default: 4]
    #[arg(long, value_name = "T", value_parser = at_least_one, help_heading = PROMPTS, hide_short_help = true)]
    pub turns: Option<usize>,
    /// Milliseconds between an answer and the next turn [default: 0]
    #[arg(long, value_name = "MS", help_heading = PROMPTS, hide_short_help = true)]
    pub think_time: Option<u64>,
    /// Tokens of one of our words, if it is known: nothing is measured then
    #[arg(long, value_name = "X", value_parser = positive, help_heading = PROMPTS, hide_short_help = true)]
    pub tokens_per_word: Option<f64>,
    /// Write on after an end-of-text token, so that every answer has its full length
    #[arg(long, help_heading = PROMPTS)]
    pub ignore_eos: bool,
    /// Sampling temperature [default: the server's]
    #[arg(long, value_name = "T", help_heading = PROMPTS, hide_short_help = true)]
    pub temperature: Option<f64>,
    /// Further fields of every request, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object, help_heading = PROMPTS, hide_short_help = true)]
    pub extra_body: Option<Map<String, Value>>,

    /// What a good request keeps, in milliseconds: ttft:200 tpot:50 e2el:5000
    #[arg(long, value_name = "MEASURE:MS", num_args = 1.., value_parser = goal, help_heading = RESULTS)]
    pub goodput: Vec<(Measure, f64)>,
    /// Write the results under the names of `vllm bench serve`
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    pub json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    pub html: Option<PathBuf>,
    /// Write one row per request
    #[arg(long, value_name = "FILE", help_heading = RESULTS, hide_short_help = true)]
    pub csv: Option<PathBuf>,
    /// Leave single requests out of --json
    #[arg(long, help_heading = RESULTS, hide_short_help = true)]
    pub summary_only: bool,
    /// A name for the run
    #[arg(long, value_name = "TEXT", help_heading = RESULTS, hide_short_help = true)]
    pub label: Option<String>,
    /// Something to remember about the run; may be given again
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., value_parser = pair, help_heading = RESULTS, hide_short_help = true)]
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum WorkloadName {
    /// All different
    Random,
    /// Groups that begin alike
    SharedPrefix,
    /// Conversations that send their history
    MultiTurn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum LengthsName {
    /// All as given
    Fixed,
    /// Evenly around what is given
    Uniform,
    /// Many short, few long: on average 202 in, 179 out
    SharegptLike,
}

/// A measure that a goal can be set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Measure {
    Ttft,
    Tpot,
    E2el,
}

impl Typed {
    /// When requests are sent.
    pub(super) fn load(&self) -> Load {
        Load {
            arrivals: Arrivals {
                rate: self.request_rate,
                burstiness: self.burstiness,
                ramp_up: self.ramp_up,
            },
            max_concurrency: self.max_concurrency,
        }
    }

    /// What is asked.
    ///
    /// # Errors
    /// If a flag has no meaning beside the others.
    pub(super) fn workload(&self) -> Result<Workload, Failure> {
        let needs = |flag: &str, workload: &str| {
            Failure::new(format!("--{flag} needs --workload {workload}")).usage()
        };
        let is = |name| self.workload == name;
        if self.prefix_len.is_some() && !is(WorkloadName::SharedPrefix) {
            return Err(needs("prefix-len", "shared-prefix"));
        }
        if self.group_size.is_some() && !is(WorkloadName::SharedPrefix) {
            return Err(needs("group-size", "shared-prefix"));
        }
        if self.turns.is_some() && !is(WorkloadName::MultiTurn) {
            return Err(needs("turns", "multi-turn"));
        }
        if self.think_time.is_some() && !is(WorkloadName::MultiTurn) {
            return Err(needs("think-time", "multi-turn"));
        }
        let shape = match self.workload {
            WorkloadName::Random => Shape::Random,
            WorkloadName::SharedPrefix => Shape::SharedPrefix {
                prefix: self.prefix_len.unwrap_or(256),
                group: self.group_size.unwrap_or(10),
            },
            WorkloadName::MultiTurn => Shape::MultiTurn {
                turns: self.turns.unwrap_or(4),
            },
        };
        Ok(Workload {
            lengths: Lengths {
                input: self.input_len,
                output: self.output_len,
                kind: self.length_kind()?,
            },
            shape,
        })
    }

    fn length_kind(&self) -> Result<LengthKind, Failure> {
        let ratio = self.range_ratio;
        if let Some(ratio) = ratio
            && !(0.0..1.0).contains(&ratio)
        {
            let words = format!("--range-ratio is from 0 up to, not including, 1; given {ratio}");
            return Err(Failure::new(words).usage());
        }
        match (self.lengths, ratio) {
            (None, None) => Ok(LengthKind::Fixed),
            (None | Some(LengthsName::Uniform), Some(ratio)) => Ok(LengthKind::Uniform(ratio)),
            (Some(LengthsName::Uniform), None) => {
                Err(Failure::new("--lengths uniform needs --range-ratio").usage())
            }
            (Some(_), Some(_)) => {
                Err(Failure::new("--range-ratio is for uniform lengths alone").usage())
            }
            (Some(LengthsName::Fixed), None) => Ok(LengthKind::Fixed),
            (Some(LengthsName::SharegptLike), None) => Ok(LengthKind::SharegptLike),
        }
    }

    /// What a good request keeps.
    pub(super) fn goals(&self) -> Goals {
        let mut goals = Goals::default();
        for (measure, most) in &self.goodput {
            let goal = match measure {
                Measure::Ttft => &mut goals.ttft,
                Measure::Tpot => &mut goals.tpot,
                Measure::E2el => &mut goals.e2el,
            };
            *goal = Some(*most);
        }
        goals
    }

    /// What a word costs, if that was given.
    pub(super) fn calibration(&self) -> Option<Calibration> {
        self.tokens_per_word.map(|tokens_per_word| Calibration {
            overhead: 0.0,
            tokens_per_word,
        })
    }

    pub(super) fn think_time(&self) -> Duration {
        Duration::from_millis(self.think_time.unwrap_or(0))
    }

    /// Settings that shaped the run and have no name of their own in the results.
    pub(super) fn settings(&self, workload: &Workload) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        match workload.shape {
            Shape::Random => settings.push(("workload", "random".to_owned())),
            Shape::SharedPrefix { prefix, group } => {
                settings.push(("workload", "shared-prefix".to_owned()));
                settings.push(("prefix-len", prefix.to_string()));
                settings.push(("group-size", group.to_string()));
            }
            Shape::MultiTurn { turns } => {
                settings.push(("workload", "multi-turn".to_owned()));
                settings.push(("turns", turns.to_string()));
                settings.push(("think-time", self.think_time.unwrap_or(0).to_string()));
            }
        }
        let lengths = match workload.lengths.kind {
            LengthKind::Fixed => "fixed".to_owned(),
            LengthKind::Uniform(ratio) => format!("uniform ±{ratio}"),
            LengthKind::SharegptLike => "sharegpt-like".to_owned(),
        };
        settings.push(("lengths", lengths));
        if workload.lengths.kind != LengthKind::SharegptLike {
            settings.push(("input-len", self.input_len.to_string()));
            settings.push(("output-len", self.output_len.to_string()));
        }
        settings.push(("num-warmups", self.num_warmups.to_string()));
        settings.push(("ignore-eos", self.ignore_eos.to_string()));
        if let Some(temperature) = self.temperature {
            settings.push(("temperature", temperature.to_string()));
        }
        if let Some(fields) = &self.extra_body {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            settings.push(("extra-body", names.join(" ")));
        }
        for (measure, most) in &self.goodput {
            let name = match measure {
                Measure::Ttft => "goodput ttft",
                Measure::Tpot => "goodput tpot",
                Measure::E2el => "goodput e2el",
            };
            settings.push((name, format!("{most} ms")));
        }
        settings
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number of at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn ramp_up(text: &str) -> Result<RampUp, String> {
    let wrong = || "such as linear:1:20 or exponential:1:20".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let [how, from, to] = parts[..] else {
        return Err(wrong());
    };
    let is_exponential = match how {
        "linear" => false,
        "exponential" => true,
        _ => return Err(wrong()),
    };
    let rate = |text| positive(text).ok().filter(|rate| rate.is_finite());
    let (Some(from), Some(to)) = (rate(from), rate(to)) else {
        return Err(wrong());
    };
    Ok(RampUp {
        from,
        to,
        is_exponential,
    })
}

fn goal(text: &str) -> Result<(Measure, f64), String> {
    let (name, most) = text
        .split_once(':')
        .ok_or("such as ttft:200, in milliseconds")?;
    let measure = match name {
        "ttft" => Measure::Ttft,
        "tpot" => Measure::Tpot,
        "e2el" => Measure::E2el,
        _ => return Err("the measures are ttft, tpot and e2el".to_owned()),
    };
    match most.parse::<f64>() {
        Ok(most) if most >= 0.0 => Ok((measure, most)),
        _ => Err("milliseconds are a number of at least 0".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("such as gpu=h100")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

const SERVER: &str = "Server";
const LOAD: &str = "Load";
const PROMPTS: &str = "Prompts";
const RESULTS: &str = "Results";

pub(super) const ABOUT: &str = "\
Measure a server over HTTP: latency, throughput, goodput.

Talks to any server with OpenAI's API. Definitions and names are those of `vllm bench serve`. An open loop \
(--request-rate) sends when it is time, whatever the server does; a closed loop (--max-concurrency) sends the next \
request when one has ended. Before the run, two short requests find out how many tokens a word is, so that prompts \
have the wanted length; the numbers that are reported are the server's own count.";

pub(super) const EXAMPLES: &str = "\
Examples:
  export MIXGATE_BENCH_TOKEN=$(mixgate token mint --sub bench)
  mixgate bench serve --max-concurrency 8 --ignore-eos
  mixgate bench serve --request-rate 4 --goodput ttft:500 tpot:100 --html run.html
  mixgate bench serve --workload shared-prefix --prefix-len 1024 --group-size 20 --max-concurrency 8
  mixgate bench serve --workload multi-turn --turns 5 --max-concurrency 4 --json run.json";
