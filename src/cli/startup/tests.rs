use std::fs;

use super::*;

pub(in crate::cli) fn facts() -> Facts {
    Facts {
        version: "0.1.0",
        model: "seedling".to_owned(),
        parameters: 9_437_184,
        dtype: "bf16",
        device: "cpu, 2 threads, avx512".to_owned(),
        issuers: vec![issuer("mixgate")],
        mint: Some("mixgate token mint".to_owned()),
        kv_cache_tokens: 32768,
        kv_cache_bytes: 96 << 20,
        caution: None,
        max_model_len: 2048,
        load: Duration::from_millis(412),
        address: "127.0.0.1:8000".parse().unwrap(),
        tls: false,
        internal: None,
    }
}

fn issuer(name: &str) -> IssuerSummary {
    IssuerSummary {
        issuer: name.to_owned(),
        audiences: vec!["mixgate".to_owned()],
        algorithms: vec!["EdDSA".to_owned()],
        keys: 1,
        keys_url: None,
    }
}

#[test]
fn the_screen_says_what_runs_and_ends_with_two_lines_to_paste() {
    assert_eq!(
        facts().screen(),
        "mixgate 0.1.0  ·  seedling (9.4 M parameters, bf16)  ·  cpu, 2 threads, avx512\n  \
         auth      mixgate  aud=mixgate  EdDSA  1 key\n  \
         kv cache  32768 tokens, 96.0 MiB  ·  up to 2048 per request\n  \
         ready     in 0.4 s at http://127.0.0.1:8000\n\
         \n  \
         export TOKEN=$(mixgate token mint --sub you)\n  \
         curl -N http://127.0.0.1:8000/v1/chat/completions -H \"Authorization: Bearer $TOKEN\" \
         -H 'content-type: application/json' -d '{\"model\":\"seedling\",\"stream\":true,\"messages\":\
         [{\"role\":\"user\",\"content\":\"When do I sow carrots in a cold climate?\"}]}'\n"
    );
}

#[test]
fn the_screen_has_at_most_twelve_lines_however_many_issuers_there_are() {
    for count in 1..20 {
        let issuers = (0..count)
            .map(|i| issuer(&format!("https://id{i}.example/")))
            .collect();
        let mut facts = Facts { issuers, ..facts() };
        let screen = facts.screen();
        assert!(screen.lines().count() <= 12, "{screen}");
        assert_eq!(screen.contains("more issuers"), count > 6, "{screen}");
        facts.internal = Some("127.0.0.1:9090".parse().unwrap());
        let screen = facts.screen();
        assert!(screen.lines().count() <= 12, "{screen}");
        facts.caution = Some("computes nothing".to_owned());
        let screen = facts.screen();
        assert!(screen.lines().count() <= 12, "{screen}");
        assert!(
            screen.contains("\n  null      computes nothing\n"),
            "{screen}"
        );
    }
}

#[test]
fn a_server_that_listens_everywhere_is_reached_on_loopback() {
    let url = |address: &str| {
        Facts {
            address: address.parse().unwrap(),
            ..facts()
        }
        .url()
    };
    assert_eq!(url("0.0.0.0:41234"), "http://127.0.0.1:41234");
    assert_eq!(url("[::]:8000"), "http://[::1]:8000");
    assert_eq!(url("192.0.2.7:80"), "http://192.0.2.7:80");
}

/// zsh takes bare brackets for a pattern.
#[test]
fn an_ipv6_url_is_quoted_for_the_shell() {
    let screen = Facts {
        address: "[::1]:8000".parse().unwrap(),
        ..facts()
    }
    .screen();
    assert!(
        screen.contains("curl -N 'http://[::1]:8000/v1/chat/completions' -H"),
        "{screen}"
    );
}

#[test]
fn a_name_with_a_quote_survives_the_shell() {
    let screen = Facts {
        model: "gardener's".to_owned(),
        ..facts()
    }
    .screen();
    assert!(
        screen.contains(r#"-d '{"model":"gardener'\''s","#),
        "{screen}"
    );
}

#[test]
fn without_a_built_in_issuer_the_token_comes_from_the_configured_one() {
    let issuers = vec![issuer("https://acme.example/")];
    let screen = Facts {
        issuers,
        mint: None,
        ..facts()
    }
    .screen();
    assert!(
        screen.contains("\n  export TOKEN='paste a token from https://acme.example/'\n"),
        "{screen}"
    );
}

#[test]
fn the_json_line_is_one_line_with_the_real_port() {
    let line = Facts {
        address: "127.0.0.1:41234".parse().unwrap(),
        ..facts()
    }
    .json_line();
    assert_eq!(line.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["event"], "ready");
    assert_eq!(value["url"], "http://127.0.0.1:41234");
    assert_eq!(value["port"], 41234);
    assert_eq!(value["issuers"][0]["algorithms"][0], "EdDSA");
    assert_eq!(value["load_seconds"], 0.412);
}

#[test]
fn mixgate_is_named_alone_only_if_the_shell_would_find_this_very_program() {
    let folder = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (folder.path().join("here"), folder.path().join("else where"));
    for place in [&here, &elsewhere] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("mixgate"), "").unwrap();
    }
    let command = |program: &Path, path: &Path| {
        let env = Env::from([("PATH", path.to_str().unwrap())]);
        mint_command(&program.join("mixgate"), &env, None)
    };
    assert_eq!(command(&here, &here), "mixgate token mint");
    assert_eq!(
        command(&here, &elsewhere),
        format!("{}/mixgate token mint", here.display())
    );
    assert_eq!(
        command(&elsewhere, &here),
        format!("'{}/mixgate' token mint", elsewhere.display())
    );
    assert_eq!(
        mint_command(&here.join("mixgate"), &Env::default(), None),
        command(&here, &elsewhere)
    );
}

#[test]
fn a_state_folder_of_its_own_is_part_of_the_command() {
    let command = mint_command(
        Path::new("/opt/mixgate"),
        &Env::default(),
        Some(Path::new("/var/lib/mix gate")),
    );
    assert_eq!(
        command,
        "/opt/mixgate token mint --state-dir '/var/lib/mix gate'"
    );
}

#[test]
fn tls_and_the_internal_port_are_told() {
    let facts = Facts {
        tls: true,
        internal: Some("127.0.0.1:9090".parse().unwrap()),
        ..facts()
    };
    let screen = facts.screen();
    assert!(screen.contains("\n  internal  http://127.0.0.1:9090  ·  probes, metrics, admin\n"));
    assert!(screen.contains(" at https://127.0.0.1:8000\n"), "{screen}");
    assert!(screen.contains("curl -N https://127.0.0.1:8000/v1/chat/completions "));
    let line: serde_json::Value = serde_json::from_str(&facts.json_line()).unwrap();
    assert_eq!(line["url"], "https://127.0.0.1:8000");
    assert_eq!(line["internal_url"], "http://127.0.0.1:9090");
}
