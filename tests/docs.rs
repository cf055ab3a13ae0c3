//! The reference pages under `docs/` say what the code says.
//!
//! They are written by `MIXGATE_WRITE_DOCS=1 cargo test --release --test docs`, and compared by every other run.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::fmt::Write;
use std::fs;
use std::path::Path;

use mixgate::auth::Access;
use mixgate::config::TABLE;
use mixgate::server::{Handling, MESSAGE_FIELDS, REQUEST_FIELDS, WireField, routes};

#[test]
fn the_api_page_has_every_route_and_field() {
    check("api.md", &api());
}

#[test]
fn the_configuration_page_has_every_setting() {
    check("configuration.md", &configuration());
}

fn check(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    if std::env::var_os("MIXGATE_WRITE_DOCS").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/{name} is not what the code says; write it anew: MIXGATE_WRITE_DOCS=1 cargo test --release --test docs"
    );
}

fn api() -> String {
    let mut page = String::from(
        "# API\n\n\
         OpenAI's, as far as it goes; what is not supported is refused by name. Errors have OpenAI's shape, with a \
         string `code`.\n\n\
         ## Routes\n\n\
         | method | path | asks for |\n|---|---|---|\n",
    );
    for route in routes() {
        let asks = match route.access {
            Access::Public => "nothing".to_owned(),
            Access::Verified => "any valid token".to_owned(),
            Access::Scope(scope) => format!("a token with scope `{scope}`"),
        };
        let _ = writeln!(page, "| {} | `{}` | {asks} |", route.method, route.path);
    }
    page += "\nEverything else, unknown paths and wrong methods included, asks for a valid token first.\n";
    page += "\n## Fields of a chat request\n\n`null` is the same as leaving a field out. A field that is not listed \
             is a 400.\n";
    page += &fields(REQUEST_FIELDS);
    page += "\n## Fields of a message\n";
    page += &fields(MESSAGE_FIELDS);
    page
}

fn fields(table: &[WireField]) -> String {
    let mut text = String::from("\n| field | what is done with it |\n|---|---|\n");
    for field in table {
        let done = match &field.handling {
            Handling::Read => "has its effect".to_owned(),
            Handling::Harmless(why) => format!("accepted, changes nothing: {why}"),
            Handling::Only(accepted, _) => format!("not supported; accepted if {accepted}"),
        };
        let _ = writeln!(text, "| `{}` | {done} |", field.name);
    }
    text
}

fn configuration() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         A flag wins over its variable, the variable over the file, the file over the default. The file is the one \
         that `--config` names, or the first that exists of `./mixgate.toml`, `mixgate/config.toml` in \
         `$XDG_CONFIG_HOME` (or `~/.config`), and `/etc/mixgate/config.toml`. `mixgate config show --origin` says \
         what is in force and why; `mixgate config init` prints a file to start from.\n",
    );
    let mut heading = "";
    for setting in TABLE {
        if heading != setting.group.heading() {
            heading = setting.group.heading();
            let _ = writeln!(
                page,
                "\n## {heading}\n\n| key | flag | variable | default | what it is |\n|---|---|---|---|---|"
            );
        }
        let details = setting.details();
        let gap = if details.is_empty() { "" } else { ". " };
        let _ = writeln!(
            page,
            "| `{}` | `--{}` | `{}` | {} | {}{gap}{} |",
            setting.name,
            setting.flag(),
            setting.variable(),
            setting.default.words(),
            setting.summary(),
            details
        );
    }
    page + ISSUERS
}

const ISSUERS: &str = r#"
## Issuers

Without an issuer the server believes its own tokens only (`mixgate token mint`) and listens on loopback. Each issuer is
a table in the file, with its own keys; a key never vouches for another issuer.

```toml
[[auth.issuers]]
issuer = "https://acme.eu.auth0.com/"        # exactly the tokens' `iss`; a trailing slash counts
audiences = ["https://api.acme.dev"]         # required; a token must name one of them
algorithms = ["RS256"]                       # default: the usual one of each key
tenant_claim = "org_id"                      # default: each subject is its own tenant
default_scopes = ["chat", "models"]          # for tokens without a scope claim; default: none
clock_skew_s = 60                            # at most 300
max_lifetime_s = 86400

[[auth.issuers.keys]]                        # one or more, each from exactly one source
kid = "2026-a"
pem_file = "acme.pem"                        # or pem, jwk_file, jwk, hmac_secret_file
```

Files with secrets must be readable by their owner alone (mode 0600 or 0400). Scopes come from the claims `scope` and
`scp`; `scope_claims` names others.
"#;
