//! The engine's settings, public prefixes and the policy's file.

use super::*;
use crate::engine::SchedulingPolicy;

#[test]
fn the_engine_s_defaults_follow_from_each_other() {
    let engine = load("", [], []).unwrap().engine;
    assert_eq!(engine, EngineConfig::default());
    let engine = load("max_num_batched_tokens = 80\nmax_waiting = 10", [], []).unwrap();
    assert_eq!(engine.engine.max_prefill_tokens, 80);
    assert_eq!(engine.engine.max_waiting_per_subject, 8);
    let many = load("max_num_seqs = 1000", [], []).unwrap();
    assert_eq!(many.engine.max_num_batched_tokens, 2000);
    let one = load("max_waiting = 1", [], []).unwrap();
    assert_eq!(one.engine.max_waiting_per_subject, 1, "never none");
}

#[test]
fn the_engine_gets_what_was_given() {
    let file = "max_prefill_tokens = 100\nmax_waiting_tokens = 5000\nmax_waiting_per_subject = 3\n\
                scheduling_policy = \"fcfs\"\nprefix_caching = false\nmax_tenant_kv_percent = 50\n";
    let engine = load(file, [], []).unwrap().engine;
    assert_eq!(
        engine,
        EngineConfig {
            max_prefill_tokens: 100,
            max_waiting_tokens: 5000,
            max_waiting_per_subject: 3,
            scheduling_policy: SchedulingPolicy::FirstCome,
            prefix_caching: false,
            max_tenant_blocks_percent: Some(50),
            ..EngineConfig::default()
        }
    );
    let typed = load(file, [], [("prefix_caching", "true")]).unwrap();
    assert!(typed.engine.prefix_caching);
    assert_eq!(
        complaint(load("", [], [("max_tenant_kv_percent", "101")])),
        "max_tenant_kv_percent is \"101\", wanted a whole number from 1 to 100 (from --max-tenant-kv-percent)"
    );
    assert_eq!(
        complaint(load("scheduling_policy = \"priority\"", [], [])),
        "scheduling_policy is \"priority\", wanted fair or fcfs (from mixgate.toml:1)"
    );
}

const PREFIXES: &str =
    "port = 1\npublic_prefixes = [\n  \"You are kind.\",\n  \"\"\"Two\nlines\"\"\",\n]\n";

#[test]
fn public_prefixes_are_a_list_that_show_prints_as_it_was_meant() {
    let config = load(PREFIXES, [], []).unwrap();
    assert_eq!(config.public_prefixes, ["You are kind.", "Two\nlines"]);
    assert!(config.engine.public_prefixes.is_empty(), "no tokens yet");
    for origins in [false, true] {
        let again = load(&config.show(origins), [], []).unwrap();
        assert_eq!(again.public_prefixes, config.public_prefixes);
    }
    assert!(
        !load("", [], [])
            .unwrap()
            .show(false)
            .contains("public_prefixes")
    );
}

#[test]
fn public_prefixes_that_are_none_are_refused_with_their_line() {
    assert_eq!(
        complaint(load("public_prefixes = [\n  \"a\",\n  \" \",\n]", [], [])),
        "mixgate.toml:3: an entry of public_prefixes is empty"
    );
    let complaint = |file| complaint(load(file, [], []));
    assert!(complaint("port = 1\npublic_prefixes = \"a\"").starts_with("mixgate.toml:2: "));
    assert!(complaint("public_prefixes = [1]").starts_with("mixgate.toml:1: "));
    assert_eq!(
        complaint("public_prefix = [\"a\"]"),
        "mixgate.toml:1: unknown setting \"public_prefix\"\nhint: did you mean public_prefixes?"
    );
    let misplaced = complaint("[auth]\npublic_prefixes = [\"a\"]");
    assert!(
        misplaced.ends_with(
            "hint: public_prefixes is a setting of the whole server: move it above the first [table]"
        ),
        "{misplaced}"
    );
}

#[test]
fn the_policy_file_is_meant_from_the_configurations_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("mixgate.toml"),
        "policy_file = \"policy.toml\"\n",
    )
    .unwrap();
    let args = Args {
        folder: folder.path().to_owned(),
        ..Args::default()
    };
    let config = Config::load(&args).unwrap();
    let path = folder.path().join("policy.toml");
    assert_eq!(config.auth.policy_file, Some(path));
    assert_eq!(load("", [], []).unwrap().auth.policy_file, None);
}

#[test]
fn shares_have_moved_to_the_policy() {
    let complaint = complaint(load("[[auth.shares]]\nweight = 2\n", [], []));
    assert!(
        complaint.starts_with("mixgate.toml:1: unknown field `shares`"),
        "{complaint}"
    );
}

#[test]
fn a_step_has_room_for_more_tokens_than_sequences() {
    let budget = |file| load(file, [], []).map(|config| config.engine.max_num_batched_tokens);
    assert_eq!(budget("max_num_batched_tokens = 65").unwrap(), 65);
    assert_eq!(
        complaint(load("max_num_batched_tokens = 64", [], [])),
        "max_num_batched_tokens is 64, max_num_seqs is 64: a step must have room for more tokens than sequences\n\
         hint: leave max_num_batched_tokens out, give at least 65, or lower max_num_seqs"
    );
}
