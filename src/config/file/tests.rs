use serde::Deserialize;

use super::super::tests::args;
use super::*;

/// Stands for the gate's own type: strict, with a path.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Strict {
    issuers: Vec<StrictIssuer>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct StrictIssuer {
    issuer: String,
    pem_file: String,
}

fn strict(text: &str) -> (tempfile::TempDir, Result<Strict, ConfigError>) {
    let (folder, args) = args(text, [], []);
    let auth = File::find(&args).unwrap().unwrap().auth();
    (folder, auth)
}

#[test]
fn key_files_are_meant_from_the_folder_of_the_file() {
    let (folder, auth) = strict("[[auth.issuers]]\nissuer = \"i\"\npem_file = \"keys/a.pem\"");
    let path = folder
        .path()
        .join("keys/a.pem")
        .to_string_lossy()
        .into_owned();
    assert_eq!(
        auth.unwrap().issuers[0],
        StrictIssuer {
            issuer: "i".to_owned(),
            pem_file: path
        }
    );
}

#[test]
fn mistakes_in_the_auth_table_have_lines_and_suggestions() {
    let error = strict("port = 1\n[[auth.issuers]]\nisuer = \"i\"")
        .1
        .unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean issuer?"));
    assert!(
        error
            .to_string()
            .starts_with("mixgate.toml:3: unknown field `isuer`"),
        "{error}"
    );
    let error = strict("[[auth.issuers]]\nissuer = \"i\"\nport = 1")
        .1
        .unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("port is a setting of the whole server: move it above the first [table]")
    );
}
