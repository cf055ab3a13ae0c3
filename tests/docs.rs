//! The reference pages under `docs/` say what the code says.
//!
//! They are written by `MIXGATE_WRITE_DOCS=1 cargo test --release --test docs`, and compared by every other run.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::fmt::Write;
use std::fs;
use std::path::Path;

use mixgate::auth::{Access, Gate, PRESETS, Policy, policy};
use mixgate::clock::Clock;
use mixgate::config::{Args, Config, TABLE};
use mixgate::server::{
    Doors, Handling, MESSAGE_FIELDS, REQUEST_FIELDS, WireField, routes, vocabulary,
};

#[test]
fn the_api_page_has_every_route_and_field() {
    check("api.md", &api());
}

#[test]
fn the_configuration_page_has_every_setting() {
    check("configuration.md", &configuration());
}

#[test]
fn the_policy_page_and_its_schema_have_every_key() {
    check("policy.md", &policy::reference());
    check("policy.schema.json", &policy::schema());
}

#[test]
fn the_guides_configurations_are_taken_as_they_stand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides");
    let mut seen = 0;
    for guide in fs::read_dir(folder).unwrap() {
        let path = guide.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for block in blocks(&text, "toml") {
            let home = tempfile::tempdir().unwrap();
            let file = home.path().join("mixgate.toml");
            fs::write(&file, block).unwrap();
            let args = Args {
                config: Some(file),
                ..Args::default()
            };
            let config = Config::load(&args)
                .unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            if config.has_issuers() {
                let gate = Gate::new(&config.auth.gate, None, Clock::system());
                assert!(gate.is_ok(), "{}: {gate:?}\n{block}", path.display());
            }
            if block.contains("host = ") {
                let exposed = config.check_exposure();
                assert!(exposed.is_ok(), "{}: {exposed:?}", path.display());
            }
            seen += 1;
        }
        for block in blocks(&text, "toml policy") {
            let judged = Policy::parse(block, &vocabulary());
            assert!(judged.is_ok(), "{}: {judged:?}\n{block}", path.display());
        }
    }
    assert!(seen >= 6, "{seen} configurations found");
}

/// The fenced blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    page.split(&*fence)
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
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
         A server has one port for callers, and one for the operator's own machines if `internal_port` is set.\n\n\
         | method | path | asks for | on the internal port |\n|---|---|---|---|\n",
    );
    for route in routes() {
        let asks = match route.access {
            Access::Public => "nothing".to_owned(),
            Access::Verified => "any valid token".to_owned(),
            Access::Scope(scope) => format!("a token with scope `{scope}`"),
        };
        let (public, internal) = match route.doors {
            Doors::Public => (&*asks, "not there"),
            Doors::OpenInside => (&*asks, "nothing"),
            Doors::Admin => ("not there, unless `admin_on_public` is set", &*asks),
        };
        let (method, path) = (route.method, route.path);
        let _ = writeln!(page, "| {method} | `{path}` | {public} | {internal} |");
    }
    page += "\nEverything else, unknown paths and wrong methods included, asks for a valid token first.\n";
    page += "\n## Fields of a chat request\n\n`null` is the same as leaving a field out. A field that is not listed \
             is a 400.\n";
    page += &fields(REQUEST_FIELDS);
    page += "\n## Fields of a message\n";
    page += &fields(MESSAGE_FIELDS);
    page + ENDS + ADMIN
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
    page + OPEN + PREFIXES + ISSUERS + &presets() + AFTER_PRESETS + CREDENTIALS + POLICY + AUDIT
}

const ENDS: &str = r#"
## Lengths

Prompt and `max_tokens` must fit the model's context together; otherwise the answer is a 400 `context_length_exceeded`.
Without `max_tokens` a completion may take what the prompt leaves.

## When the server is busy, and when it ends a request

| status | `code` | what happened |
|---|---|---|
| 503 | `overloaded` | the queue is full, or the request would not start in the time that it may take |
| 429 | `rate_limit_exceeded` | the caller has its share of the queue; others still find room |
| 504 | `deadline_exceeded` | the request took longer than the policy allows its caller; `x-should-retry: false` |
| 403 | `access_revoked` | the caller's right was taken away meanwhile |
| 401 | `token_expired` | the caller's credential expired while the request waited, or ran and may not go on; `x-should-retry: true` |

The first two come before any work is done on the prompt, with `Retry-After` (whole seconds) and `retry-after-ms`: how
long it takes until there is room, as the queue moved lately. The others are plain errors as long as nothing was sent;
in a stream that has begun, the last event is the error, and no `[DONE]` follows.

## Limits

What a caller may use is limited by requests per minute, tokens per minute, sequences at the same time, and budgets of
tokens per day and per month (UTC). Tokens are those of the prompt, cached ones included, and of all completions.

Before a request waits for its turn, it reserves what it may use: the prompt and `n` times `max_tokens`, or, without
`max_tokens`, the prompt and a first piece of each completion, and more as it grows. What it does not use goes back when
it ends, however it ends. So a budget is never exceeded, not by one token, however many requests run at the same time.

| status | `code` | what happened |
|---|---|---|
| 429 | `rate_limit_exceeded` | too many requests or tokens in a minute, or the caller's running requests have reserved the rest of a budget; with `Retry-After` and `retry-after-ms` |
| 429 | `concurrency_limit_exceeded` | as many sequences as the caller may have; with `Retry-After: 1` |
| 429 | `insufficient_quota` | a budget is spent, or the request is larger than what is left of it, or than a whole minute; `x-should-retry: false` |
| 400 | `parameter_not_allowed` | `n` is more than the caller may ever have at the same time |
| 503 | `overloaded` | the server counts the limits of as many callers as it can |

If `max_tokens` is more than a budget covers, the request runs as far as the budget goes (or is refused, where the policy
says so). A budget that runs out ends a completion with the last token that it covers:

- A single body is a 200 with `finish_reason` `length` and exact `usage`.
- A stream ends each completion with `finish_reason` `length`, tells `usage` whether or not it was asked to, and then
  sends an error event with the code `insufficient_quota` instead of `[DONE]`.

Limits of a minute apply to what starts: what runs is not cut short by them, but what it uses beyond the limit delays the
caller's next requests. A request that is refused because of its tokens counts as a request all the same, since its
prompt was read.

Every answer to a limited caller, refusals included, says where it stands with its tightest limit of requests and of
tokens, reservations included:

| header | example |
|---|---|
| `x-ratelimit-limit-requests`, `x-ratelimit-limit-tokens` | `60` |
| `x-ratelimit-remaining-requests`, `x-ratelimit-remaining-tokens` | `59` |
| `x-ratelimit-reset-requests`, `x-ratelimit-reset-tokens`: until the limit is whole again | `20ms`, `1s`, `6m0s` |

## Cached prompts

`usage.prompt_tokens_details.cached_tokens` counts the prompt tokens whose computation was reused. Tenants never share
it. `cache_salt`, a string of 1 to 256 bytes, narrows the circle to requests of the tenant with the same salt.
"#;

const OPEN: &str = r#"
## Probes without a token

Some routers and scrapers probe the port that they send requests to, and have no token. `[public.open]` opens rows to
their addresses:

```toml
[public.open]
routes = ["/health", "/version", "/v1/models", "/metrics"]
from = ["10.0.0.0/24"]                       # the machines themselves, as their sockets show them
```

Only rows that the internal port answers without a token can be opened, never generation. A request that such a machine
passes on for another (it has `X-Forwarded-For` or `Forwarded`) is not its own and needs a token, unless the machine is
in `trusted_proxies` and the other one is on the list too. More than the probes can be opened to private ranges and to
public ones of at most a /16 (/32 of IPv6).

## TLS

`tls_cert_file` and `tls_key_file` make the public port speak TLS 1.2 and 1.3. New files are taken up when they change
and on SIGHUP, all or none; bad ones leave the old in force, and the log and `mixgate_tls_reloads_total` say so.
Connections keep the certificate that they began with. `mixgate_tls_certificate_expiry_timestamp_seconds` says when the
one in force ends.

Builds with `--features acme` get certificates themselves: `acme_domains = ["llm.example.com"]`. The authority asks back
on port 443 of each name (TLS-ALPN-01), which must lead to this server's port. Certificates and the account are kept in
`acme/` of the state folder and renewed before they end; the log says what the authority answered. `scripts/acme-check/run`
tests all of this against Pebble, the test authority of Let's Encrypt's makers.
"#;

const ADMIN: &str = r#"
## Administration

Tokens and API keys with the scope `admin` may make API keys and take rights away. What is done is in the ledger, and in
force, when the answer comes. `mixgate key` and `mixgate revoke` do the same on the machine itself.

```sh
curl $URL/admin/keys -H "Authorization: Bearer $ADMIN" \
  -d '{"sub": "nightly-report", "tenant": "acme", "scope": "chat models", "expires_in_seconds": 7776000}'
curl $URL/admin/revocations -H "Authorization: Bearer $ADMIN" \
  -d '{"what": "subject", "value": "ann", "issuer": "https://acme.eu.auth0.com/"}'
```

| route | body | answer |
|---|---|---|
| `POST /admin/keys` | `sub`; may have `tenant`, `scope`, `note`, `expires_in_seconds` | the key's facts, and once the `key` itself |
| `GET /admin/keys` | | a list of facts; never a key or its hash |
| `DELETE /admin/keys/{id}` | | the facts; what runs under the key ends |
| `POST /admin/revocations` | `what`: `token` (a `jti`), `subject`, `client`, `key` (a `kid`) or `issuer`; `value`, but for an issuer; `issuer`, if there are several; may have `expires_in_seconds` | the revocation; what runs under it ends |
| `GET /admin/revocations` | | a list |
| `DELETE /admin/revocations/{id}` | | what it named is good again |

Revoking a subject, a client or an issuer means what was issued until now; a token without `iat` counts as issued before.
"#;

const PREFIXES: &str = r#"
## Public prefixes

The computed beginnings of prompts are shared within a tenant and never across tenants, so that nobody can find out by
timing what others ask. System prompts that anybody may know can be declared public; their blocks are computed once for
all. The list stands at the top of the file:

```toml
public_prefixes = ["You are a helpful gardener. Answer in two sentences."]
```

A request profits if its whole system prompt is one of them. One that fills no block of the KV cache (`block_size`
tokens) helps nobody: the server says so as it starts.
"#;

const ISSUERS: &str = r#"
## Issuers

Without an issuer the server believes its own tokens only (`mixgate token mint`) and listens on loopback. Each issuer is
a table in the file, with its own keys; a key never vouches for another issuer.

```toml
[[auth.issuers]]
preset = "auth0"                             # fills in what is left out: see below
issuer = "https://acme.eu.auth0.com/"        # exactly the tokens' `iss`; a trailing slash counts
audiences = ["https://api.acme.dev"]         # required; a token must name one of them
tenant_claim = "org_id"                      # default: each subject is its own tenant
default_scopes = ["chat", "models"]          # for tokens without a scope claim; default: none
clock_skew_s = 60                            # at most 300
max_lifetime_s = 86400

[[auth.issuers]]
issuer = "https://login.acme.dev"
audiences = ["https://api.acme.dev"]
algorithms = ["RS256"]                       # default: the usual one of each key

[[auth.issuers.keys]]                        # one or more, each from exactly one source
kid = "2026-a"
pem_file = "acme.pem"                        # or pem, jwk_file, jwk, hmac_secret_file
```

Files with secrets must be readable by their owner alone (mode 0600 or 0400). Scopes come from the claims `scope` and
`scp`; `scope_claims` names others, `scope_prefix` cuts off what an issuer puts before them. `subject_claim`,
`client_claim`, `audience_claim` and `token_id_claim` name the claims for the rest; a name with a leading slash is a path
(`/realm_access/roles`). `required_claims` must be there with their values; `token_types` are the header's `typ`.

### Where keys come from

Each issuer has exactly one source: `keys` in the file, `jwks_url`, or `discovery` (`true` for the issuer's usual place,
or a URL; the document must name the issuer exactly). A preset stands for `discovery = true`.

- Keys are fetched in the background: at the start, then every 5 to 60 minutes as `Cache-Control` says, and at once when
  a token names a key that is not known, but for such tokens twice in 30 s at most. A key that is no longer published
  dies with the next fetch.
- A failed fetch is tried again after 1 to 60 s. Keys at hand go on serving for `stale_if_error_s` (a day). Without keys,
  tokens of the issuer are answered with 503 `auth_unavailable`, and `/readyz` says 503 until they came once, unless the
  issuer has `required = false`.
- Only https, or http on loopback with `allow_http_loopback = true`; no redirects and no proxies; at most 512 KiB and 100
  keys. `ca_file` names the only certificates that may vouch for the server, `refuse_private_addresses = true` keeps the
  fetch on the public internet. A key that is weak, secret, private or for encryption is dropped alone, with a line in
  the log.

### Presets

What a preset fills in; a setting of the entry itself wins. All take `RS256` alone.
"#;

const CREDENTIALS: &str = r#"
## API keys and client certificates

`mixgate key create --sub nightly-report --expires 90d` prints a key once; the ledger keeps its hash. A key is sent as a
token is, `Authorization: Bearer mg_…`, and is subject to the same policy, limits and revocations, under the issuer
`mixgate:keys`. Exactly one credential may come with a request; two are a 400, and none is ever read from the query string.

```toml
[auth]
api_key_headers = true                       # API keys may also come in `api-key` or `x-api-key`; default: false

[auth.certificates]                          # what a client certificate that TLS has verified stands for
identify = true                              # it is a credential if no header is one; default: false
scopes = ["chat", "models"]                  # default: none
subject = ["uri", "dns", "cn"]               # the first that it has; two of one kind are refused
tenant = "o"                                 # o or ou; default: each subject is its own tenant
```

Certificates' identities have the issuer `mixgate:mtls`. A token with `cnf: {"x5t#S256": …}` (RFC 8705) is good only on a
connection with that very certificate.
"#;

const AFTER_PRESETS: &str = r#"
An ID token says who signed in to an application and is not meant for an API; `accept_id_tokens = true` takes it all the
same. For several tenants of Entra, write `{tenantid}` in their place and list them:

```toml
[[auth.issuers]]
preset = "entra"
issuer = "https://login.microsoftonline.com/{tenantid}/v2.0"
tenants = ["11111111-2222-3333-4444-555555555555"]
audiences = ["6e74172b-be56-4843-9ff4-e66a39bb12e3"]
```
"#;

/// A row for each preset, and a line on each.
fn presets() -> String {
    let mut page = String::from(
        "\n| preset | issuer | audiences | subject | tenant | client | token id | scopes | must have |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let code = |name: &str| format!("`{name}`");
    for facts in &PRESETS {
        let scopes: Vec<String> = facts.scope_claims.iter().map(|name| code(name)).collect();
        let required = facts
            .required_claims
            .iter()
            .map(|(name, value)| code(&format!("{name} = {value}")));
        let present = facts.access_token_claims.iter().map(|name| code(name));
        let must: Vec<String> = required.chain(present).collect();
        let audience = match facts.audience_claim {
            "aud" => facts.audiences.to_owned(),
            other => format!("{}, in `{other}`", facts.audiences),
        };
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {audience} | `{}` | {} | {} | `{}` | {} | {} |",
            facts.name,
            facts.issuer,
            facts.subject_claim,
            facts.tenant_claim.map_or("-".to_owned(), code),
            facts
                .client_claim
                .map_or("`client_id`, else `azp`".to_owned(), code),
            facts.token_id_claim,
            scopes.join(", "),
            if must.is_empty() {
                "-".to_owned()
            } else {
                must.join(", ")
            },
        );
    }
    page.push('\n');
    for facts in &PRESETS {
        let hours = facts.max_lifetime_s / 3600;
        let _ = writeln!(
            page,
            "- `{}`: {} Tokens live {hours} h at most.",
            facts.name, facts.remark
        );
    }
    page
}

const POLICY: &str = r#"
## Policy

Who may do what, and how much of it, follows from the verified token and the file that `policy_file` names
([policy.md](policy.md)); nothing in a request widens it. Without it, everybody may do what its token's scopes say.
"#;

const AUDIT: &str = r#"
## The audit

Each request that the gate judged leaves one line on the log target `mixgate::audit`, at level `info`: `decision` (`allow`
or `deny`), `request_id`, `method`, `route` (the row of the route table), `address`, and of a known caller `issuer`,
`subject`, `credential` (`token`, `api_key` or `certificate`), `key_id` and `rule`. A denial has `reason`, the `code` that
the caller was told, and either `detail` or, for a token whose signature did not come out right, the `step` at which it
failed: nothing of such a token is written. `log_level = "info,mixgate::audit=off"` turns the lines off.

`subject` is a hash of issuer and subject in all logs, unless `audit_subjects = "clear"`. At most
`audit_denials_per_second` denials are written in a second, those of known and of unknown callers counted apart; lines
that were left out are counted in a line with `suppressed`.

## The built-in issuer's keys

`mixgate token rotate` puts a new key in the place of the one in `state_dir`, as the user whom the server runs as. The
server signs nothing itself and takes up the change within a second. Tokens of the earlier key are taken for `--keep`
(30 days if not said, the longest life of a token); with `--retire-now` none is. `mixgate token keys` lists them.
"#;
