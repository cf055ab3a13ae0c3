use super::common::secret;
use super::harness::{Home, Said};

/// `mixgate … --state-dir X`
fn with_state(home: &Home, words: &[&str]) -> Said {
    let state_dir = home.state_dir();
    home.run(&[words, &["--state-dir", state_dir.to_str().unwrap()]].concat())
}

#[test]
fn a_minted_token_stands_alone_on_stdout_and_is_good() {
    let home = Home::new();
    let said = with_state(&home, &["token", "mint", "--sub", "you"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let token = said.stdout.strip_suffix('\n').unwrap();
    assert_eq!(token.lines().count(), 1);
    assert_eq!(token.split('.').count(), 3);
    let base64url = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!(token.chars().all(base64url), "{token}");

    let said = with_state(&home, &["token", "verify", token]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert!(said.stdout.starts_with("valid: "), "{}", said.stdout);
    assert!(said.stdout.contains("\nsubject  you\n"), "{}", said.stdout);
    assert!(
        said.stdout.contains("\nscopes   chat models\n"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_bad_token_fails_with_the_reason_and_without_the_token() {
    let home = Home::new();
    let token = home.token("chat");
    let (head, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let tampered = secret(format!("{head}.{other}{}", &signature[1..]));
    let foreign = Home::new().token("chat");
    for (bad, reason) in [
        (&*tampered, "the signature"),
        (&*foreign, "the key id is"),
        ("sk-1234", "has 1 parts"),
    ] {
        let said = with_state(&home, &["token", "verify", bad]);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert_eq!(said.stdout, "");
        assert!(
            said.stderr.starts_with("error: the token is refused: "),
            "{}",
            said.stderr
        );
        assert!(said.stderr.contains(reason), "{}", said.stderr);
        assert!(
            said.stderr
                .contains("  caused by: the server answers 401 invalid_token\n"),
            "{}",
            said.stderr
        );
        assert!(!said.stderr.contains(bad), "{}", said.stderr);
    }
}

#[test]
fn a_public_address_without_an_issuer_is_refused_with_the_ways_out() {
    let home = Home::new();
    let said = with_state(&home, &["serve", "--port", "0", "--host", "0.0.0.0"]);
    assert_eq!((said.code, &*said.stdout), (Some(1), ""));
    assert_eq!(
        said.stderr,
        "error: 0.0.0.0 can be reached from other machines, and no issuer is configured\n\
         hint: add [[auth.issuers]] to mixgate.toml, or listen on --host 127.0.0.1; \
         --allow-public-builtin-issuer lets tokens of this machine's own key in\n"
    );
    assert!(!home.state_dir().exists(), "no key is made on the way");
}

#[test]
fn a_misspelt_key_of_the_file_is_found_and_the_right_one_suggested() {
    let home = Home::new();
    std::fs::write(
        home.path().join("mixgate.toml"),
        "# mine\nmax_num_seq = 3\n",
    )
    .unwrap();
    let said = with_state(&home, &["serve", "--port", "0"]);
    assert_eq!((said.code, &*said.stdout), (Some(1), ""));
    assert_eq!(
        said.stderr,
        "error: mixgate.toml:2: unknown setting \"max_num_seq\"\nhint: did you mean max_num_seqs?\n"
    );
}

#[test]
fn the_configuration_in_force_says_where_each_value_comes_from() {
    let home = Home::new();
    std::fs::write(
        home.path().join("mixgate.toml"),
        "max_num_seqs = 3\nport = 1\n",
    )
    .unwrap();
    let mut command = home.mixgate(&["config", "show", "--origin", "--port", "9"]);
    let said = Said::from(command.env("MIXGATE_BLOCK_SIZE", "8").output().unwrap());
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let line = |name: &str| {
        let found = said
            .stdout
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")));
        found
            .unwrap_or_else(|| panic!("no {name} in {}", said.stdout))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("port"), "port = 9 # --port");
    assert_eq!(line("block_size"), "block_size = 8 # MIXGATE_BLOCK_SIZE");
    assert_eq!(line("max_num_seqs"), "max_num_seqs = 3 # mixgate.toml:1");
    assert_eq!(line("max_waiting"), "max_waiting = 1024 # default");

    let shown = home.run(&["config", "show", "--port", "9"]).stdout;
    let again = Home::new();
    std::fs::write(again.path().join("mixgate.toml"), &shown).unwrap();
    let said = again.run(&["config", "check"]);
    assert_eq!(said.code, Some(0), "{}\n{shown}", said.stderr);
    assert_eq!(said.stdout, "ok (mixgate.toml)\n");
}

#[test]
fn the_route_table_is_printed_and_says_what_is_public() {
    let said = Home::new().run(&["routes"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    let rows: Vec<Vec<&str>> = said
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let public: Vec<&str> = rows
        .iter()
        .filter(|row| row[3] == "open")
        .map(|row| row[1])
        .collect();
    assert_eq!(
        public,
        [
            "/livez",
            "/readyz",
            "/health",
            "/.well-known/oauth-protected-resource",
            "/.well-known/jwks.json"
        ]
    );
    let chat = "POST /v1/chat/completions chat a token with scope chat -";
    let chat: Vec<&str> = chat.split(' ').collect();
    assert!(rows.contains(&chat), "{}", said.stdout);
}

#[test]
fn a_checked_configuration_has_keys_that_load() {
    let home = Home::new();
    std::fs::write(
        home.path().join("mixgate.toml"),
        "[[auth.issuers]]\nissuer = \"i\"\naudiences = [\"a\"]\nkeys = [{ pem_file = \"gone.pem\" }]\n",
    )
    .unwrap();
    let said = with_state(&home, &["config", "check"]);
    assert_eq!((said.code, &*said.stdout), (Some(1), ""));
    assert!(
        said.stderr
            .starts_with("error: issuer `i`, key 1: cannot read gone.pem"),
        "{}",
        said.stderr
    );
    // Checking makes no key of its own.
    assert!(!home.state_dir().exists());
}
