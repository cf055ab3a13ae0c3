//! The two ports of a process, and certificates that change under it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

use super::common::{said_by_a_server, within};
use super::harness::{Home, Mixgate};

/// A certificate for 127.0.0.1, and a client that believes it alone.
fn renew(folder: &Path) -> reqwest::Client {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let put = |name: &str, text: &str| {
        // Renamed into place, as renewals are.
        let draft = folder.join("draft");
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&draft, folder.join(name)).unwrap();
    };
    put("key.pem", &key.serialize_pem());
    put("cert.pem", &certificate);
    let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([root])
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_process_speaks_tls_and_takes_up_a_renewed_certificate_by_itself() {
    let home = Home::new();
    let old = renew(home.path());
    fs::write(
        home.path().join("mixgate.toml"),
        "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\ninternal_port = 0\n",
    )
    .unwrap();
    let server = Mixgate::serve_at(home, &[]);
    assert!(server.url("").starts_with("https://127.0.0.1:"));
    let answer = within(old.get(server.url("/readyz")).send()).await.unwrap();
    assert_eq!(answer.status(), 200);

    let new = renew(server.home.path());
    within(async {
        while new.get(server.url("/readyz")).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(old.get(server.url("/readyz")).send().await.is_err());
    let inside = server.ready["internal_url"].as_str().unwrap();
    let metrics = within(reqwest::get(format!("{inside}/metrics")))
        .await
        .unwrap();
    let metrics = within(metrics.text()).await.unwrap();
    assert!(
        metrics.contains(
            "mixgate_tls_certificate_expiry_timestamp_seconds{door=\"public\"} 2524608000\n"
        ),
        "{metrics}"
    );
    assert!(metrics.contains("mixgate_tls_reloads_total{result=\"ok\"} "));
}

#[tokio::test]
async fn the_internal_port_asks_no_token_for_what_machines_read() {
    let server = Mixgate::serve(&["--internal-port", "0"]);
    let inside = server.ready["internal_url"].as_str().unwrap().to_owned();
    let status = |path: &str| {
        let request = server.client.get(format!("{inside}{path}"));
        async { within(request.send()).await.unwrap().status().as_u16() }
    };
    for path in [
        "/livez",
        "/readyz",
        "/health",
        "/version",
        "/metrics",
        "/v1/models",
    ] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    assert_eq!(status("/").await, 401);
    assert_eq!(status("/v1/models/seedling").await, 401);
}

#[test]
fn certificates_of_no_use_are_named_before_the_model_loads() {
    let home = Home::new();
    renew(home.path());
    let words = ["serve", "--port", "0", "--tls-cert-file", "cert.pem"];
    let said = home.run(&words);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(
        said.stderr,
        "error: tls_cert_file is set (from --tls-cert-file), and tls_key_file is not\nhint: give tls_key_file too, or \
         leave tls_cert_file out\n"
    );
    fs::set_permissions(
        home.path().join("key.pem"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    for command in [&["serve", "--port", "0"][..], &["config", "check"]] {
        let files = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"];
        let said = home.run(&[command, &files].concat());
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(
            said.stderr.lines().last().unwrap(),
            "hint: chmod 600 the file; replace the secret if others did read it"
        );
        let fault = "error: key.pem holds a secret and has mode 0644: others may have read it";
        assert!(said.stderr.contains(fault), "{}", said.stderr);
    }
}

#[test]
fn a_public_port_without_tls_is_warned_of() {
    let home = Home::new();
    let said = home.run(&["routes"]);
    assert!(said.stdout.starts_with("METHOD PATH "), "{}", said.stdout);
    let mut server = home.mixgate(&[
        "serve",
        "--port",
        "0",
        "--host",
        "0.0.0.0",
        "--allow-public-builtin-issuer",
        "--state-dir",
        ".",
        "--model",
        "nothing-of-this-name",
    ]);
    let said = server.output().unwrap();
    let log = String::from_utf8(said.stderr).unwrap();
    said_by_a_server(&log);
    let warning = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["level"] == "WARN");
    assert!(
        warning.is_some_and(|line| line.to_string().contains("travel as plain text")),
        "{log}"
    );
}
