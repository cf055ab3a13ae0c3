//! What can be typed, and what help says about it.

use super::args::{Command, command_line, parse};
use super::bench::BenchCommand;
use crate::config::{Env, TABLE};

fn help(words: &[&str]) -> String {
    let typed = ["mixgate"].iter().chain(words).copied();
    let error = command_line()
        .term_width(80)
        .try_get_matches_from(typed)
        .unwrap_err();
    error.render().to_string()
}

fn typed(words: &[&str]) -> Result<(Command, crate::config::Args), clap::Error> {
    parse(
        ["mixgate"].iter().chain(words).map(Into::into).collect(),
        Env::default(),
    )
}

#[test]
fn the_command_line_is_consistent() {
    command_line().debug_assert();
}

#[test]
fn short_help_fits_a_screen_of_24_by_80() {
    for words in [
        &["-h"][..],
        &["serve", "-h"],
        &["token", "mint", "-h"],
        &["demo", "-h"],
        &["config", "-h"],
        &["bench", "engine", "-h"],
        &["bench", "kernels", "-h"],
    ] {
        let text = help(words);
        assert!(
            text.lines().count() <= 24,
            "{} lines:\n{text}",
            text.lines().count()
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}

#[test]
fn long_help_names_every_setting_its_variable_and_its_default_and_ends_with_examples() {
    let text = help(&["serve", "--help"]);
    for setting in TABLE {
        assert!(
            text.contains(&format!("--{}", setting.flag())),
            "{} is missing",
            setting.name
        );
        assert!(
            text.contains(&format!("[env: {}]", setting.variable())),
            "{} is missing",
            setting.variable()
        );
    }
    assert!(text.contains("[default: 127.0.0.1]"), "{text}");
    let order = [
        "Options:",
        "Model:",
        "Engine:",
        "Server:",
        "Auth:",
        "Logging:",
        "Examples:",
    ];
    let places: Vec<_> = order
        .iter()
        .map(|heading| text.find(&format!("\n{heading}")))
        .collect();
    assert!(places.iter().all(Option::is_some), "{places:?}\n{text}");
    assert!(
        text.trim_end()
            .lines()
            .last()
            .unwrap()
            .starts_with("  mixgate serve"),
        "{text}"
    );
}

#[test]
fn flags_are_values_for_the_config_and_nothing_else() {
    let (command, args) = typed(&[
        "serve",
        "--port",
        "0",
        "--max-num-seqs=2",
        "--config",
        "x.toml",
    ])
    .unwrap();
    assert!(matches!(command, Command::Serve));
    assert_eq!(
        args.typed.into_iter().collect::<Vec<_>>(),
        [("max_num_seqs", "2".to_owned()), ("port", "0".to_owned()),]
    );
    assert_eq!(args.config, Some("x.toml".into()));
}

#[test]
fn a_switch_needs_no_value_and_takes_one_after_an_equals_sign() {
    let switch =
        |flag| typed(&["serve", flag]).unwrap().1.typed["allow_public_builtin_issuer"].clone();
    assert_eq!(switch("--allow-public-builtin-issuer"), "true");
    assert_eq!(switch("--allow-public-builtin-issuer=false"), "false");
    let caching = |flag| typed(&["serve", flag]).unwrap().1.typed["prefix_caching"].clone();
    assert_eq!(caching("--prefix-caching"), "true");
    assert_eq!(caching("--prefix-caching=false"), "false");
}

#[test]
fn token_commands_take_a_state_folder_but_no_port() {
    let (command, args) =
        typed(&["token", "mint", "--sub", "you", "--state-dir", "/tmp/x"]).unwrap();
    assert!(matches!(command, Command::Token(_)));
    assert_eq!(args.typed["state_dir"], "/tmp/x");
    assert!(typed(&["token", "mint", "--sub", "you", "--port", "1"]).is_err());
}

#[test]
fn a_misspelt_flag_is_refused_with_the_right_one() {
    let error = typed(&["serve", "--max-num-seq", "3"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--max-num-seqs"), "{error}");
}

#[test]
fn config_show_takes_every_setting_and_origin() {
    let (command, args) = typed(&["config", "show", "--origin", "--port", "9"]).unwrap();
    assert!(matches!(command, Command::ConfigShow { origins: true }));
    assert_eq!(args.typed["port"], "9");
}

#[test]
fn bench_engine_takes_its_own_flags_and_those_of_model_and_engine() {
    let words = [
        "bench",
        "engine",
        "--batch",
        "1,8",
        "--model",
        "null:mixtral-8x7b",
        "--max-num-seqs=4",
    ];
    let (command, args) = typed(&words).unwrap();
    let Command::Bench(BenchCommand::Engine(bench)) = command else {
        panic!("{command:?}")
    };
    assert_eq!(
        (bench.batch, bench.prompt_len, bench.output_len),
        (vec![1, 8], 1024, 256)
    );
    assert_eq!(args.typed["model"], "null:mixtral-8x7b");
    assert_eq!(args.typed["max_num_seqs"], "4");
    for wrong in [
        &["--batch", "0"][..],
        &["--batch", ""],
        &["--prompt-len=0"],
        &["--port=1"],
    ] {
        assert!(
            typed(&[&["bench", "engine"], wrong].concat()).is_err(),
            "{wrong:?}"
        );
    }
}
