//! What can be typed.
//!
//! The flags of settings are made from [`crate::config::TABLE`]; they are text here and judged by [`crate::config`],
//! like the environment and the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{
    Arg, ArgAction, ArgMatches, Args as _, FromArgMatches, Subcommand, ValueHint, value_parser,
};

use super::bench::BenchCommand;
use super::key::KeyCommand;
use super::policy::PolicyCommand;
use super::revoke::RevokeCommand;
use super::token_command::TokenCommand;
use super::usage::Usage;
use crate::config::{self, DefaultValue, Env, Group, Setting, TABLE};

/// A command, with what only it takes.
#[derive(Debug)]
pub(super) enum Command {
    Serve,
    Demo,
    Routes,
    ConfigShow { origins: bool },
    ConfigCheck,
    ConfigInit,
    Bench(BenchCommand),
    Policy(PolicyCommand),
    Key(KeyCommand),
    Revoke(RevokeCommand),
    Token(TokenCommand),
    Usage(Usage),
}

/// Understands a command line, the program's own name first.
///
/// # Errors
/// clap's: a mistake, or the help or version that was asked for.
pub(super) fn parse(
    typed: Vec<OsString>,
    env: Env,
) -> Result<(Command, config::Args), clap::Error> {
    let matches = command_line().try_get_matches_from(typed)?;
    let (name, below) = matches
        .subcommand()
        .expect("clap insists on a command. This is a bug.");
    let mut leaf = below;
    let command = match name {
        "serve" => Command::Serve,
        "demo" => Command::Demo,
        "routes" => Command::Routes,
        "bench" => {
            let command = BenchCommand::from_arg_matches(below)?;
            // The flags of the others are no settings, whatever their names.
            if let (BenchCommand::Engine(_), Some((_, below))) = (&command, below.subcommand()) {
                leaf = below;
            }
            Command::Bench(command)
        }
        "config" => {
            let (name, below) = below
                .subcommand()
                .expect("clap insists on a command. This is a bug.");
            leaf = below;
            match name {
                "show" => Command::ConfigShow {
                    origins: below.get_flag(ORIGIN),
                },
                "check" => Command::ConfigCheck,
                _ => Command::ConfigInit,
            }
        }
        "key" => {
            leaf = below.subcommand().map_or(below, |(_, below)| below);
            Command::Key(KeyCommand::from_arg_matches(below)?)
        }
        "revoke" => {
            leaf = below.subcommand().map_or(below, |(_, below)| below);
            Command::Revoke(RevokeCommand::from_arg_matches(below)?)
        }
        "usage" => Command::Usage(Usage::from_arg_matches(below)?),
        "policy" => {
            leaf = below.subcommand().map_or(below, |(_, below)| below);
            Command::Policy(PolicyCommand::from_arg_matches(below)?)
        }
        _ => {
            leaf = below.subcommand().map_or(below, |(_, below)| below);
            Command::Token(TokenCommand::from_arg_matches(below)?)
        }
    };
    Ok((
        command,
        config::Args {
            typed: settings_in(leaf),
            config: path_in(leaf),
            env,
            folder: PathBuf::new(),
        },
    ))
}

/// The whole command line, as clap sees it.
pub(super) fn command_line() -> clap::Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .global(true)
        .help("Read this file, not ./mixgate.toml")
        .long_help(
            "Read this file. Without it: ./mixgate.toml, else mixgate/config.toml in $XDG_CONFIG_HOME (~/.config), \
             else /etc/mixgate/config.toml; the first that exists [env: MIXGATE_CONFIG]",
        );
    clap::Command::new("mixgate")
        .version(VERSION)
        .about(
            "Serves Mixtral-family models over the OpenAI API, to callers who prove who they are",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(100)
        .arg(config)
        .after_long_help(EXAMPLES)
        .subcommands([
            with_settings(clap::Command::new("serve"), |_| true)
                .about("Serve a model until SIGTERM or Ctrl-C")
                .long_about(SERVE)
                .after_help(
                    "`mixgate serve --help` shows every setting, its variable and examples.",
                )
                .after_long_help(SERVE_EXAMPLES),
            with_settings(clap::Command::new("demo"), |setting| {
                DEMO_SETTINGS.contains(&setting.name)
            })
            .about("Show a refusal, a token and a streamed answer in one go"),
            token(),
            key(),
            revoke(),
            usage(),
            policy(),
            configuration(),
            bench(),
            clap::Command::new("routes").about("Print every route and what it asks of its caller"),
        ])
}

fn token() -> clap::Command {
    TokenCommand::augment_subcommands(clap::Command::new("token"))
        .about("Mint and check tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .mut_subcommands(|command| with_settings(command, |setting| setting.name == "state_dir"))
}

fn key() -> clap::Command {
    KeyCommand::augment_subcommands(clap::Command::new("key"))
        .about("Make, list and revoke API keys")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .mut_subcommands(with_ledger)
}

fn revoke() -> clap::Command {
    RevokeCommand::augment_subcommands(clap::Command::new("revoke"))
        .about("Take rights away: a token's, a subject's, a client's, a key's, an issuer's")
        .long_about(REVOKE)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .mut_subcommands(with_ledger)
}

/// With what finds the ledger.
fn with_ledger(command: clap::Command) -> clap::Command {
    with_settings(command, |setting| LEDGER_SETTINGS.contains(&setting.name))
}

fn usage() -> clap::Command {
    with_ledger(Usage::augment_args(clap::Command::new("usage")))
        .about("Print who used how many tokens")
}

fn policy() -> clap::Command {
    let of_policy = |setting: &Setting| ["state_dir", "policy_file"].contains(&setting.name);
    PolicyCommand::augment_subcommands(clap::Command::new("policy"))
        .about("Check a policy, and see what it gives to whom")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .mut_subcommands(|command| with_settings(command, of_policy))
}

fn configuration() -> clap::Command {
    let origin = Arg::new(ORIGIN)
        .long(ORIGIN)
        .action(ArgAction::SetTrue)
        .help("Say where each value comes from");
    clap::Command::new("config")
        .about("Show and check the configuration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            with_settings(clap::Command::new("show"), |_| true)
                .about("Print the configuration in force as TOML")
                .arg(origin),
            with_settings(clap::Command::new("check"), |_| true)
                .about("Say whether `serve` would accept the configuration"),
            clap::Command::new("init").about("Print a mixgate.toml with every setting explained"),
        ])
}

fn bench() -> clap::Command {
    let of_engine = |setting: &Setting| {
        matches!(setting.group, Group::Model | Group::Engine | Group::Logging)
            && !NOT_FOR_BENCH.contains(&setting.name)
    };
    BenchCommand::augment_subcommands(clap::Command::new("bench"))
        .about("Measure a server, the engine alone, or kernels")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .mut_subcommand("engine", |command| with_settings(command, of_engine))
}

fn with_settings(command: clap::Command, wanted: impl Fn(&Setting) -> bool) -> clap::Command {
    command.args(TABLE.iter().filter(|setting| wanted(setting)).map(flag))
}

fn flag(setting: &'static Setting) -> Arg {
    let short = match setting.default {
        DefaultValue::Is(default) if !setting.is_switch => {
            format!("{} [default: {default}]", setting.summary())
        }
        _ => setting.summary().to_owned(),
    };
    let details = match setting.details() {
        details if details.is_empty() => details,
        details => format!("\n{details}"),
    };
    let long = format!(
        "{}{details}\n[env: {}] [default: {}]",
        setting.summary(),
        setting.variable(),
        setting.default.words()
    );
    let arg = Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.value_name)
        .help_heading(setting.group.heading())
        .help(short)
        .long_help(long)
        .hide_short_help(!setting.in_short_help);
    if setting.is_switch {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        arg
    }
}

/// The settings that were typed. A command that lacks a setting's flag has no value for it.
fn settings_in(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let value = |name| matches.try_get_one::<String>(name).ok().flatten();
    TABLE
        .iter()
        .filter_map(|setting| Some((setting.name, value(setting.name)?.clone())))
        .collect()
}

fn path_in(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(CONFIG).cloned()
}

const CONFIG: &str = "config";
const ORIGIN: &str = "origin";
const DEMO_SETTINGS: [&str; 4] = ["model", "served_model_name", "chat_template", "log_level"];

const LEDGER_SETTINGS: [&str; 2] = ["state_dir", "ledger"];
const NOT_FOR_BENCH: [&str; 2] = ["served_model_name", "chat_template"];

const SERVE: &str = "\
Serve a model until SIGTERM or Ctrl-C.

Every setting is a flag, a variable and a key of mixgate.toml by the same name: --max-num-seqs, MIXGATE_MAX_NUM_SEQS, \
max_num_seqs. A flag wins over the environment, the environment over the file.";

const REVOKE: &str = "\
Take rights away.

What is revoked is written to the ledger. A running server reads it at once, refuses what it names and ends what runs \
under it, within a step of the model.";

const EXAMPLES: &str = "\
Examples:
  mixgate serve                              serve the built-in model on 127.0.0.1:8000
  mixgate demo                               see it work, in ten lines
  export TOKEN=$(mixgate token mint --sub you)
  mixgate config show --origin               what is in force, and why";

const SERVE_EXAMPLES: &str = "\
Examples:
  mixgate serve                              the built-in model on 127.0.0.1:8000
  mixgate serve --port 0                     on a free port, which the screen names
  mixgate serve --model ./mixtral-8x7b --kv-cache-bytes 8GiB
  MIXGATE_LOG_LEVEL=debug mixgate serve
  mixgate serve --config /etc/mixgate/prod.toml --host 0.0.0.0";
/// Ours, and what the binary was built for.
#[cfg(feature = "cuda")]
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (CPU; CUDA ",
    env!("MIXGATE_CUDA_VERSION"),
    " for sm_80, sm_90)"
);
/// Ours, and what the binary was built for.
#[cfg(not(feature = "cuda"))]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (CPU)");
