use super::*;
use crate::server::{CertificateSource, ClientCertificates};

#[test]
fn by_default_there_is_one_plain_door_and_nobody_is_trusted() {
    let server = load("", [], []).unwrap().server;
    assert_eq!(server.tls, None);
    assert_eq!(server.internal, None);
    assert!(!server.admin_on_public);
    assert_eq!(server.trusted_proxies, []);
    assert_eq!(server.cors_origins, []);
    assert_eq!(server.open, Default::default());
    assert_eq!(server.write_timeout, Duration::from_secs(60));
    assert_eq!(server.max_connections_per_address, 768);
}

#[test]
fn an_address_has_three_quarters_of_the_connections_unless_told() {
    let per_address = |flags: [(&'static str, &str); 2]| {
        load("", [], flags)
            .unwrap()
            .server
            .max_connections_per_address
    };
    assert_eq!(per_address([("max_connections", "40"), ("port", "1")]), 30);
    assert_eq!(
        per_address([
            ("max_connections", "40"),
            ("max_connections_per_address", "3")
        ]),
        3
    );
}

#[test]
fn the_internal_listener_is_on_loopback() {
    let internal = |flags| load("", [], flags).unwrap().server.internal.unwrap();
    let address = internal([("internal_port", "9090"), ("host", "0.0.0.0")]);
    assert_eq!(address.to_string(), "127.0.0.1:9090");
    let address = internal([("internal_port", "9090"), ("internal_host", "10.0.0.4")]);
    assert_eq!(address.to_string(), "10.0.0.4:9090");
}

#[test]
fn lists_are_arrays_in_a_file_and_have_commas_elsewhere() {
    let file =
        "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\ncors_origins = [\"https://a.example\"]\n";
    let server = load(file, [], []).unwrap().server;
    let shown: Vec<String> = server
        .trusted_proxies
        .iter()
        .map(|it| it.to_string())
        .collect();
    assert_eq!(shown, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(server.cors_origins[0].as_str(), "https://a.example");

    let env = [("MIXGATE_TRUSTED_PROXIES", "192.168.0.0/16,10.0.0.1")];
    let server = load(file, env, []).unwrap().server;
    let shown: Vec<String> = server
        .trusted_proxies
        .iter()
        .map(|it| it.to_string())
        .collect();
    assert_eq!(shown, ["192.168.0.0/16", "10.0.0.1/32"]);

    let shown = load(file, [], []).unwrap().show(false);
    assert!(
        shown.contains("trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]\n"),
        "{shown}"
    );
    for (file, said) in [
        (
            "trusted_proxies = [\"10.0.0.1/8\"]",
            "trusted_proxies is [10.0.0.1/8], wanted networks such as 10.0.0.0/8, or addresses (from mixgate.toml:1)",
        ),
        (
            "trusted_proxies = [1]",
            "trusted_proxies is of type array, wanted networks such as 10.0.0.0/8, or addresses (from mixgate.toml:1)",
        ),
        (
            "cors_origins = [\"*\"]",
            "cors_origins is [*], wanted origins such as https://app.example, without a path or a star (from \
             mixgate.toml:1)",
        ),
        (
            "port = [\"8000\"]",
            "port is the list [8000], wanted a port from 0 to 65535 (from mixgate.toml:1)",
        ),
    ] {
        assert_eq!(complaint(load(file, [], [])), said, "{file}");
    }
}

#[test]
fn certificate_and_key_come_together() {
    let file = "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n";
    let (folder, args) = args(file, [], []);
    let tls = Config::load(&args).unwrap().server.tls.unwrap();
    assert_eq!(
        tls.certificate,
        CertificateSource::Files {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        }
    );
    assert_eq!(tls.clients, ClientCertificates::Off);
    for (file, said) in [
        (
            "tls_cert_file = \"c\"",
            "tls_cert_file is set (from mixgate.toml:1), and tls_key_file is not\nhint: give tls_key_file too, or leave \
             tls_cert_file out",
        ),
        (
            "tls_key_file = \"k\"",
            "tls_key_file is set (from mixgate.toml:1), and tls_cert_file is not\nhint: give tls_cert_file too, or \
             leave tls_key_file out",
        ),
        (
            "tls_client_ca_file = \"c\"",
            "tls_client_ca_file is set (from mixgate.toml:1), and tls_client_auth is not\nhint: give tls_client_auth \
             too, or leave tls_client_ca_file out",
        ),
        (
            "tls_client_auth = \"required\"",
            "tls_client_auth is set (from mixgate.toml:1), and tls_client_ca_file is not\nhint: give \
             tls_client_ca_file too, or leave tls_client_auth out",
        ),
        (
            "tls_client_auth = \"required\"\ntls_client_ca_file = \"c\"",
            "tls_client_auth is set (from mixgate.toml:1), and tls_cert_file is not\nhint: give tls_cert_file too, or \
             leave tls_client_auth out",
        ),
        (
            "tls_cert_file = \"c\"\ntls_key_file = \"k\"\nacme_domains = [\"a.example\"]",
            "tls_cert_file and acme_domains exclude each other (from mixgate.toml:1 and mixgate.toml:3)\nhint: give \
             either tls_cert_file or acme_domains",
        ),
    ] {
        assert_eq!(complaint(load(file, [], [])), said, "{file}");
    }
}

#[test]
fn an_authority_keeps_its_certificates_in_the_state_folder() {
    let file = "acme_domains = [\"llm.example.com\"]\nacme_contact = \"mailto:ops@example.com\"\nstate_dir = \"/s\"\n";
    let tls = load(file, [], []).unwrap().server.tls.unwrap();
    assert_eq!(
        tls.certificate,
        CertificateSource::Acme {
            domains: vec!["llm.example.com".to_owned()],
            contact: Some("mailto:ops@example.com".to_owned()),
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            directory_ca_file: None,
            folder: "/s/acme".into(),
        }
    );
}

#[test]
fn rows_are_opened_to_addresses_and_a_bad_table_is_named_with_its_line() {
    let file = "port = 1\n\n[public.open]\nroutes = [\"/metrics\"]\nfrom = [\"10.0.0.0/24\"]\n";
    let config = load(file, [], []).unwrap();
    assert_ne!(config.server.open, Default::default());
    let shown = config.show(false);
    assert!(shown.contains("[public.open]\n"), "{shown}");
    assert!(load(&shown, [], []).is_ok(), "{shown}");
    for (file, said) in [
        (
            "\n[public.open]\nroutes = [\"/v1/chat/completions\"]\nfrom = [\"10.0.0.1\"]\n",
            "mixgate.toml:2: \"/v1/chat/completions\" cannot be opened; these can: /livez, /readyz, /health, \
             /v1/models, /version, /metrics\nhint: everything else needs a token, whoever asks",
        ),
        (
            "[public.open]\nroutes = [\"/metrics\"]\nfrom = [\"0.0.0.0/0\"]\n",
            "mixgate.toml:1: 0.0.0.0/0 is a wide range of public addresses, and /metrics is more than a probe\nhint: \
             name the machines that probe, or at most a /16 (/32 of IPv6); private ranges may be as wide as they are",
        ),
        (
            "[public.open]\nroutes = [\"/metrics\"]\nfrom = [\"here\"]\n",
            "mixgate.toml:3: \"here\" is no network such as 10.0.0.0/24",
        ),
        (
            "[public.open]\nroute = [\"/metrics\"]\nfrom = []\n",
            "mixgate.toml:2: unknown field `route`, expected `routes` or `from`\nhint: did you mean routes?",
        ),
        (
            "[public]\nopened = 1\n",
            "mixgate.toml:2: unknown field `opened`, expected `open`\nhint: did you mean open?",
        ),
    ] {
        assert_eq!(complaint(load(file, [], [])), said, "{file}");
    }
}

#[test]
fn what_others_can_reach_or_read_on_its_way_is_known() {
    let plain = |host: &str| {
        let config = load("", [], [("host", host)]).unwrap();
        config.is_plaintext_in_public()
    };
    assert!(plain("0.0.0.0") && plain("10.0.0.4"));
    assert!(!plain("127.0.0.1") && !plain("::1"));
    let secure = "host = \"0.0.0.0\"\ntls_cert_file = \"c\"\ntls_key_file = \"k\"\n";
    assert!(!load(secure, [], []).unwrap().is_plaintext_in_public());
    let inside = |host: &str| {
        let flags = [("internal_host", host), ("internal_port", "0")];
        load("", [], flags).unwrap().is_internal_in_public()
    };
    assert!(inside("0.0.0.0") && !inside("127.0.0.1"));
}
