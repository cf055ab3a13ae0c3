//! What is true, given what was typed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::model::ModelSource;

mod engine;
mod ledger;
mod server;

/// Arguments with a file called `mixgate.toml`, an environment and flags.
pub(super) fn args<const E: usize, const F: usize>(
    file: &str,
    env: [(&str, &str); E],
    flags: [(&'static str, &str); F],
) -> (tempfile::TempDir, Args) {
    let folder = tempfile::tempdir().unwrap();
    if !file.is_empty() {
        fs::write(folder.path().join("mixgate.toml"), file).unwrap();
    }
    let typed = flags
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    let args = Args {
        typed,
        config: None,
        env: Env::from(env),
        folder: folder.path().to_owned(),
    };
    (folder, args)
}

fn load<const E: usize, const F: usize>(
    file: &str,
    env: [(&str, &str); E],
    flags: [(&'static str, &str); F],
) -> Result<Config, ConfigError> {
    let (_folder, args) = args(file, env, flags);
    Config::load(&args)
}

/// An issuer that the gate's own type takes, up to its last key.
const ISSUER: &str = "[[auth.issuers]]\nissuer = \"https://id.example/\"\naudiences = [\"api\"]\n\
                      [[auth.issuers.keys]]\nkid = \"1\"\n";

/// The error and the hint, as they are printed.
fn complaint(result: Result<Config, ConfigError>) -> String {
    let error = result.unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn every_default_is_a_value_of_its_setting() {
    for setting in TABLE {
        if let DefaultValue::Is(text) = setting.default {
            assert!((setting.check)(text).is_some(), "{} = {text}", setting.name);
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let config = load("", [("HOME", "/home/you")], []).unwrap();
    assert_eq!(config.model.source, Model::Real(ModelSource::Seedling));
    assert_eq!(config.model.served_model_name, "seedling");
    assert_eq!(config.model.kv_cache, KvCache::Auto);
    assert_eq!(config.server.host.to_string(), "127.0.0.1");
    assert_eq!(config.server.port, 8000);
    assert_eq!(config.server.max_body_bytes, 4 << 20);
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(
        config.auth.state_dir,
        Path::new("/home/you/.local/state/mixgate")
    );
    assert!(!config.auth.allow_public_builtin_issuer);
    assert!(config.log.colour);
    assert_eq!(config.file, None);
}

#[test]
fn a_dtype_is_a_storage_or_auto_and_a_slip_is_put_right() {
    for (text, dtype) in [
        ("auto", None),
        ("w4a16", Some(Storage::W4a16)),
        ("q8_0", Some(Storage::Q8_0)),
        ("q4_k", Some(Storage::Q4K)),
        ("fp8", Some(Storage::Fp8)),
        ("bf16", Some(Storage::Bf16)),
        ("f32", Some(Storage::F32)),
    ] {
        let config = load("", [], [("dtype", text)]).unwrap();
        assert_eq!(config.model.dtype, dtype);
        let file = format!("dtype = \"{text}\"");
        assert_eq!(load(&file, [], []).unwrap().model.dtype, dtype);
    }
    for (slip, hint) in [
        ("Q8_0", "\nhint: write q8_0"),
        ("Q4-K", "\nhint: write q4_k"),
        ("bfloat16", "\nhint: write bf16"),
        ("f16", ""),
        ("", ""),
    ] {
        assert_eq!(
            complaint(load("", [], [("dtype", slip)])),
            format!(
                "dtype is \"{slip}\", wanted auto, w4a16, q8_0, q4_k, fp8, bf16 or f32 (from --dtype){hint}"
            )
        );
    }
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    // number, size, time, address, switch, word, path
    let rows = [
        ("port", "8000", "1", "2", "3"),
        (
            "max_body_bytes",
            "\"4MiB\"",
            "\"1KiB\"",
            "\"2KiB\"",
            "\"3KiB\"",
        ),
        ("ping_interval", "\"15s\"", "\"1s\"", "\"2s\"", "\"3s\""),
        (
            "host",
            "\"127.0.0.1\"",
            "\"127.0.0.2\"",
            "\"127.0.0.3\"",
            "\"127.0.0.4\"",
        ),
        (
            "allow_public_builtin_issuer",
            "false",
            "true",
            "false",
            "true",
        ),
        (
            "log_level",
            "\"info\"",
            "\"warn\"",
            "\"error\"",
            "\"debug\"",
        ),
        (
            "state_dir",
            "\"/home/you/.local/state/mixgate\"",
            "\"/a\"",
            "\"/b\"",
            "\"/c\"",
        ),
    ];
    for (name, default, file, env, flag) in rows {
        let setting = Setting::named(name).unwrap();
        let (line, variable) = (format!("{name} = {file}"), setting.variable());
        let (env, flag) = (env.trim_matches('"'), flag.trim_matches('"'));
        let shown = |file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]| {
            let (_folder, mut args) = args(file, [], []);
            args.env = Env::from([
                env.first().copied().unwrap_or(("X", "")),
                ("HOME", "/home/you"),
            ]);
            args.typed = flags
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            let text = Config::load(&args).unwrap().show(false);
            text.lines()
                .find_map(|row| row.strip_prefix(&format!("{name} = ")))
                .unwrap()
                .to_owned()
        };
        assert_eq!(shown("", &[], &[]), default, "{name}");
        assert_eq!(shown(&line, &[], &[]), file, "{name}");
        assert_eq!(
            shown(&line, &[(&variable, env)], &[]).trim_matches('"'),
            env,
            "{name}"
        );
        assert_eq!(
            shown(&line, &[(&variable, env)], &[(name, flag)]).trim_matches('"'),
            flag,
            "{name}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_with_their_line_and_a_suggestion() {
    assert_eq!(
        complaint(load("# mine\nmax-num-seq = 3\n", [], [])),
        "mixgate.toml:2: unknown setting \"max-num-seq\"\nhint: did you mean max_num_seqs?"
    );
    assert_eq!(
        complaint(load("colour = 3\n", [], [])),
        "mixgate.toml:1: unknown setting \"colour\"\nhint: `mixgate config show` lists every setting"
    );
    assert_eq!(
        complaint(load("\n[server]\nport = 80\n", [], [])),
        "mixgate.toml:2: unknown setting \"server\"\n\
         hint: settings stand at the top of the file, outside tables: write port = …"
    );
}

#[test]
fn unknown_variables_are_refused_with_a_suggestion() {
    assert_eq!(
        complaint(load("", [("MIXGATE_PROT", "80")], [])),
        "unknown variable MIXGATE_PROT in the environment\nhint: did you mean MIXGATE_PORT?"
    );
    assert_eq!(
        complaint(load("", [("MIXGATE_FAVOURITE_VEGETABLE", "carrot")], [])),
        "unknown variable MIXGATE_FAVOURITE_VEGETABLE in the environment\n\
         hint: `mixgate serve --help` lists every variable; unset this one"
    );
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    assert_eq!(
        load("port = 5", [("MIXGATE_PORT", "")], [])
            .unwrap()
            .server
            .port,
        5
    );
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_not_settings() {
    let service = [
        ("MIXGATE_SERVICE_HOST", "10.0.0.1"),
        ("MIXGATE_SERVICE_PORT", "8000"),
        ("MIXGATE_PORT", "tcp://10.0.0.1:8000"),
        ("MIXGATE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("MIXGATE_MAX_WAITING", "9"),
    ];
    let config = load("", service, []).unwrap();
    assert_eq!((config.server.port, config.engine.max_waiting), (8000, 9));
    assert!(load("", [("MIXGATE_PORT", "tcp://10.0.0.1:8000")], []).is_err());
}

#[test]
fn values_of_the_wrong_kind_name_key_given_wanted_and_origin() {
    assert_eq!(
        complaint(load("model = \"seedling\"\nport = 80000\n", [], [])),
        "port is 80000, wanted a port from 0 to 65535 (from mixgate.toml:2)"
    );
    assert_eq!(
        complaint(load("port = \"80\"\n", [], [])),
        "port is the string \"80\", wanted a port from 0 to 65535 (from mixgate.toml:1)"
    );
    assert_eq!(
        complaint(load("host = [1]\n", [], [])),
        "host is of type array, wanted an IP address such as 127.0.0.1, or localhost (from mixgate.toml:1)"
    );
    assert_eq!(
        complaint(load("", [("MIXGATE_BODY_TIMEOUT", "30")], [])),
        "body_timeout is \"30\", wanted a time above zero such as 500ms, 30s or 5m (from MIXGATE_BODY_TIMEOUT)"
    );
    let error = load("", [], [("max_num_seqs", "0")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "max_num_seqs is \"0\", wanted a whole number from 1 (from --max-num-seqs)"
    );
    assert!(error.is_usage());
}

#[test]
fn a_wrong_line_is_found_also_where_a_flag_hides_it() {
    assert!(load("port = -1", [], [("port", "80")]).is_err());
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let text = complaint(load("port = 80\nhost 127\n", [], []));
    assert!(text.starts_with("mixgate.toml:2: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_file_that_was_named_must_exist() {
    let (_folder, mut args) = args("", [], []);
    args.config = Some("missing.toml".into());
    assert_eq!(
        Config::load(&args).unwrap_err().to_string(),
        "there is no file missing.toml (from --config)"
    );
    args.config = None;
    args.env = Env::from([("MIXGATE_CONFIG", "gone.toml")]);
    assert_eq!(
        Config::load(&args).unwrap_err().to_string(),
        "there is no file gone.toml (from MIXGATE_CONFIG)"
    );
}

#[test]
fn the_folder_s_file_comes_before_the_user_s_and_a_named_one_before_both() {
    let (folder, mut args) = args("port = 1", [], []);
    let user = folder.path().join("xdg");
    fs::create_dir_all(user.join("mixgate")).unwrap();
    fs::write(user.join("mixgate/config.toml"), "port = 2").unwrap();
    fs::write(folder.path().join("named.toml"), "port = 3").unwrap();
    args.env = Env::from([("XDG_CONFIG_HOME", user.to_str().unwrap())]);
    assert_eq!(Config::load(&args).unwrap().server.port, 1);
    fs::remove_file(folder.path().join("mixgate.toml")).unwrap();
    assert_eq!(Config::load(&args).unwrap().server.port, 2);
    args.config = Some("named.toml".into());
    assert_eq!(Config::load(&args).unwrap().server.port, 3);
}

#[test]
fn relative_paths_in_a_file_start_at_its_folder_and_the_seedling_is_no_path() {
    let (folder, args_) = args(
        "model = \"models/mine\"\nchat_template = \"/t.jinja\"",
        [],
        [],
    );
    let config = Config::load(&args_).unwrap();
    assert_eq!(
        config.model.source,
        Model::Real(ModelSource::Folder(folder.path().join("models/mine")))
    );
    assert_eq!(config.model.served_model_name, "mine");
    assert_eq!(
        config.model.chat_template.as_deref(),
        Some(Path::new("/t.jinja"))
    );
    assert_eq!(
        load("model = \"seedling\"", [], []).unwrap().model.source,
        Model::Real(ModelSource::Seedling)
    );
    let typed = load("", [], [("model", "models/mine")]).unwrap();
    assert_eq!(
        typed.model.source,
        Model::Real(ModelSource::Folder("models/mine".into()))
    );
}

#[test]
fn a_null_model_is_a_name_in_a_file_too_and_served_under_what_stands_after_the_colon() {
    let text = "null:mixtral-8x7b@a100-w4a16";
    for config in [
        load(&format!("model = \"{text}\""), [], []).unwrap(),
        load("", [], [("model", text)]).unwrap(),
    ] {
        let name = crate::engine::null::NullName::parse("mixtral-8x7b@a100-w4a16").unwrap();
        assert_eq!(config.model.source, Model::Null(name));
        assert_eq!(config.model.served_model_name, "mixtral-8x7b@a100-w4a16");
        assert!(
            config
                .show(false)
                .contains(&format!("model = \"{text}\"\n"))
        );
    }
}

#[test]
fn a_synthetic_model_is_a_name_too() {
    let text = "synthetic:mixtral-8x7b,dtype=w4a16,layers=2";
    let config = load("", [], [("model", text)]).unwrap();
    let name = crate::model::Synthetic::parse("mixtral-8x7b,dtype=w4a16,layers=2").unwrap();
    let source = Model::Real(ModelSource::Synthetic(name));
    assert_eq!(config.model.source, source);
    assert!(
        config
            .show(false)
            .contains(&format!("model = \"{text}\"\n"))
    );
    let refused = load("", [], [("model", "synthetic:mixtral-8x7b,layers=99")]);
    assert_eq!(
        complaint(refused),
        "model is \"synthetic:mixtral-8x7b,layers=99\", wanted \"seedling\", a checkpoint folder, synthetic:SHAPE or \
         null:SHAPE[@DEVICE-PRECISION] (from --model)\n\
         hint: layers is \"99\"; mixtral-8x7b has 1 to 32"
    );
}

#[test]
fn a_device_is_the_cpu_or_a_gpu_by_number() {
    let device = |text| load("", [], [("device", text)]).map(|config| config.model.device);
    assert_eq!(load("", [], []).unwrap().model.device, DeviceName::Cpu);
    assert_eq!(device("cpu").unwrap(), DeviceName::Cpu);
    assert_eq!(device("cuda").unwrap(), DeviceName::Cuda(0));
    assert_eq!(device("cuda:3").unwrap(), DeviceName::Cuda(3));
    assert_eq!(
        complaint(load("", [], [("device", "gpu")])),
        "device is \"gpu\", wanted \"cpu\" or cuda:N (from --device)"
    );
}

#[test]
fn a_null_model_that_does_not_exist_is_refused_with_those_that_do() {
    let refused = load("", [], [("model", "null:mixtral-9x7b")]);
    assert_eq!(
        complaint(refused),
        "model is \"null:mixtral-9x7b\", wanted \"seedling\", a checkpoint folder, \
         synthetic:SHAPE or null:SHAPE[@DEVICE-PRECISION] (from --model)\n\
         hint: there is no shape \"mixtral-9x7b\"; there are mixtral-8x7b, mixtral-8x22b"
    );
}

#[test]
fn the_state_folder_is_systemd_s_then_xdg_s_then_home_s_and_a_flag_s_before_all() {
    let all = [
        ("STATE_DIRECTORY", "/var/lib/mixgate:/x"),
        ("XDG_STATE_HOME", "/s"),
        ("HOME", "/h"),
    ];
    let folder = |env: &[(&str, &str)]| {
        let pad = |i: usize| env.get(i).copied().unwrap_or(("X", ""));
        let config = load("", [pad(0), pad(1), pad(2)], []).unwrap();
        (
            config.auth.state_dir.display().to_string(),
            config.origin("state_dir").to_string(),
        )
    };
    let pair = |path: &str, origin: &str| (path.to_owned(), origin.to_owned());
    assert_eq!(
        folder(&all),
        pair("/var/lib/mixgate", "default, from STATE_DIRECTORY")
    );
    assert_eq!(
        folder(&all[1..]),
        pair("/s/mixgate", "default, from XDG_STATE_HOME")
    );
    assert_eq!(
        folder(&all[2..]),
        pair("/h/.local/state/mixgate", "default, from HOME")
    );
    let typed = load("", all, [("state_dir", "/mine")]).unwrap();
    assert_eq!(typed.auth.state_dir, Path::new("/mine"));
}

#[test]
fn show_tells_where_each_value_comes_from() {
    let file = format!("max_num_seqs = 4\n\n{ISSUER}");
    let config = load(
        &file,
        [("MIXGATE_LOG_LEVEL", "debug"), ("HOME", "/h")],
        [("port", "0")],
    )
    .unwrap();
    let text = config.show(true);
    for line in [
        "model = \"seedling\"  # default",
        "# max_model_len is not set: the model's context, or what the cache holds",
        "max_num_seqs = 4  # mixgate.toml:1",
        "port = 0  # --port",
        "state_dir = \"/h/.local/state/mixgate\"  # default, from HOME",
        "log_level = \"debug\"  # MIXGATE_LOG_LEVEL",
        "# mixgate.toml",
        "issuer = \"https://id.example/\"",
    ] {
        assert!(
            text.lines()
                .any(|shown| shown.split_whitespace().eq(line.split_whitespace())),
            "no line `{line}` in\n{text}"
        );
    }
}

#[test]
fn what_show_prints_is_a_file_that_means_the_same() {
    let before = load(
        "kv_cache_bytes = \"1GiB\"\nheader_timeout = \"1m30s\"\nmodel = \"/m/it's \\\"ours\\\"\"",
        [("HOME", "/h")],
        [("host", "::1")],
    )
    .unwrap();
    let after = load(&before.show(true), [("HOME", "/other")], []).unwrap();
    assert_eq!(before.model, after.model);
    assert_eq!(before.server, after.server);
    assert_eq!(before.auth.state_dir, after.auth.state_dir);
}

#[test]
fn show_never_prints_a_key() {
    let file = format!(
        "{ISSUER}jwk = '{{\"kty\":\"oct\",\"k\":\"hunter2\"}}'\n\
         [[auth.issuers.keys]]\nhmac_secret_file = \"/keys/s\"\n"
    );
    let text = load(&file, [], []).unwrap().show(false);
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("hmac_secret_file = \"/keys/s\""), "{text}");
}

#[test]
fn the_template_is_a_file_that_changes_nothing_and_names_every_setting() {
    let text = template();
    for setting in TABLE {
        assert!(
            text.contains(&format!("\n# {} = ", setting.name)),
            "{} is missing",
            setting.name
        );
    }
    let config = load(&text, [("HOME", "/h")], []).unwrap();
    assert_eq!(
        config.show(false),
        load("", [("HOME", "/h")], []).unwrap().show(false)
    );
}

#[test]
fn the_cache_is_given_in_tokens_or_bytes_and_the_stronger_layer_decides() {
    let cache = |file, flags: [(&'static str, &str); 1]| {
        load(file, [], flags).map(|config| config.model.kv_cache)
    };
    let other = ("port", "1");
    assert_eq!(
        cache("kv_cache_tokens = 64", [other]).unwrap(),
        KvCache::Tokens(64)
    );
    assert_eq!(
        cache("kv_cache_tokens = 64", [("kv_cache_bytes", "1KiB")]).unwrap(),
        KvCache::Bytes(1024)
    );
    assert_eq!(
        cache("kv_cache_bytes = 64", [("kv_cache_tokens", "32")]).unwrap(),
        KvCache::Tokens(32)
    );
    assert_eq!(
        complaint(load("kv_cache_bytes = 64\nkv_cache_tokens = 64", [], [])),
        "kv_cache_tokens and kv_cache_bytes exclude each other (from mixgate.toml:2 and mixgate.toml:1)\n\
         hint: give either kv_cache_tokens or kv_cache_bytes"
    );
}

#[test]
fn the_cache_s_blocks_follow_from_tokens_bytes_or_the_model() {
    assert_eq!(KvCache::Tokens(100).blocks(1024, 2048, 16), 6);
    assert_eq!(KvCache::Bytes(1 << 20).blocks(1024, 2048, 16), 64);
    assert_eq!(KvCache::Bytes(1).blocks(1024, 2048, 16), 1, "never none");
    // Sixteen contexts of 2048 tokens are 32 MiB.
    assert_eq!(KvCache::Auto.blocks(1024, 2048, 16), 16 * 128);
    // Sixteen would be 512 MiB: 128 MiB hold four.
    assert_eq!(KvCache::Auto.blocks(16384, 2048, 16), 4 * 128);
    // One alone is 4 GiB.
    assert_eq!(KvCache::Auto.blocks(128 << 10, 32768, 16), 2048);
    assert_eq!(
        KvCache::Auto.blocks(1024, 33, 16),
        48,
        "whole contexts of whole blocks"
    );
}

#[test]
fn the_configuration_itself_knows_whether_it_has_issuers() {
    let public = [("host", "0.0.0.0")];
    assert!(load("", [], public).unwrap().check_exposure().is_err());
    assert!(
        load("[auth]\nissuers = []", [], public)
            .unwrap()
            .check_exposure()
            .is_err()
    );
    assert!(load(ISSUER, [], public).unwrap().check_exposure().is_ok());
}
