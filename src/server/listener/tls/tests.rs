use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::duplex;
use tokio::time::Instant;

use super::*;

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;

/// A certificate for 2026 and its key, as PEM.
fn pair() -> (String, String) {
    pair_of(2026, 2027)
}

/// From the first of January of one year to that of another.
fn pair_of(from: i32, until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["llm.example.com".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Files in a folder of their own.
struct Files {
    folder: TempDir,
    settings: TlsConfig,
}

impl Files {
    fn new((certificate, key): (String, String)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        let settings = TlsConfig {
            certificate: CertificateSource::Files {
                certificate: at("cert.pem"),
                key: at("key.pem"),
            },
            clients: ClientCertificates::Off,
        };
        let files = Self { folder, settings };
        files.write("cert.pem", &certificate);
        files.write("key.pem", &key);
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        let path = self.folder.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn tls(&self) -> Result<Tls, TlsError> {
        Tls::new(self.settings.clone(), Clock::manual(NOW).0)
    }

    /// What a start says, with the folder's name cut out.
    fn refusal(&self) -> String {
        let error = self.tls().err().expect("these files should not do");
        let hint = error.hint().unwrap_or("none");
        let folder = format!("{}/", self.folder.path().display());
        format!("{error} | {hint}").replace(&folder, "")
    }
}

#[test]
fn good_files_come_up_and_say_when_they_expire() {
    let tls = Files::new(pair()).tls().unwrap();
    assert_eq!(tls.expires(), Some(1_798_761_600));
    let config = tls.current().config.clone();
    assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(config.max_early_data_size, 0);
}

#[test]
fn a_certificate_out_of_its_time_is_an_error() {
    assert_eq!(
        Files::new(pair_of(2020, 2026)).refusal(),
        "the certificate in cert.pem expired on Jan  1 00:00:00 2026 +00:00 | renew it; a file that is replaced while \
         the server runs is read anew"
    );
    assert_eq!(
        Files::new(pair_of(2027, 2028)).refusal(),
        "the certificate in cert.pem is valid from Jan  1 00:00:00 2027 +00:00 only | wait until then, or correct this \
         machine's clock"
    );
}

#[test]
fn a_key_that_is_not_the_certificates_is_an_error() {
    let files = Files::new((pair().0, pair().1));
    assert_eq!(
        files.refusal(),
        "the key in key.pem is not that of the certificate in cert.pem | give the two files of one issuance; in a \
         chain the server's own certificate stands first"
    );
}

#[test]
fn a_key_that_others_may_read_is_an_error() {
    for mode in [0o640, 0o604, 0o644, 0o660] {
        let files = Files::new(pair());
        files.mode("key.pem", mode);
        assert_eq!(
            files.refusal(),
            format!(
                "key.pem holds a secret and has mode {mode:04o}: others may have read it | chmod 600 the file; replace \
                 the secret if others did read it"
            )
        );
    }
    // A certificate is for everybody.
    let files = Files::new(pair());
    files.mode("cert.pem", 0o644);
    assert!(files.tls().is_ok());
}

#[test]
fn files_without_what_they_should_hold_are_errors() {
    let (certificate, key) = pair();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pair, fault) in [
        (
            (key.clone(), key.clone()),
            "there is no certificate in cert.pem",
        ),
        (
            (String::new(), key.clone()),
            "there is no certificate in cert.pem",
        ),
        (
            (broken.to_owned(), key.clone()),
            "cert.pem holds a certificate that cannot be read",
        ),
        (
            (certificate.clone(), certificate.clone()),
            "there is no private key in key.pem",
        ),
        (
            (certificate, String::new()),
            "there is no private key in key.pem",
        ),
    ] {
        let said = Files::new(pair).refusal();
        assert_eq!(said.split(" | ").next().unwrap(), fault);
    }
    let files = Files::new(pair_of(2026, 2027));
    fs::remove_file(files.folder.path().join("cert.pem")).unwrap();
    assert!(files.refusal().starts_with("cannot read cert.pem: "));
}

#[test]
fn a_file_of_authorities_without_any_is_an_error() {
    let mut files = Files::new(pair());
    files.write("ca.pem", "nothing");
    files.settings.clients = ClientCertificates::Required {
        authorities: files.folder.path().join("ca.pem"),
    };
    assert!(
        files
            .refusal()
            .starts_with("there is no certificate in ca.pem | ")
    );
}

#[test]
fn with_client_certificates_no_session_is_resumed() {
    let mut files = Files::new(pair());
    files.write("ca.pem", &pair().0);
    let authorities = files.folder.path().join("ca.pem");
    files.settings.clients = ClientCertificates::Optional { authorities };
    let config = files.tls().unwrap().current().config.clone();
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.session_storage.can_cache());
}

#[test]
fn bad_new_files_leave_the_old_ones_in_force() {
    let files = Files::new(pair());
    let tls = files.tls().unwrap();
    let before = tls.current();
    let (certificate, key) = pair_of(2026, 2028);
    // Half of a renewal: the new certificate, still the old key.
    files.write("cert.pem", &certificate);
    assert!(matches!(tls.reload(), Err(TlsError::Mismatch { .. })));
    assert!(Arc::ptr_eq(&before, &tls.current()));

    files.write("key.pem", &key);
    tls.reload().unwrap();
    assert!(tls.expires() > before.expires);

    let after = tls.current();
    let (certificate, key) = pair_of(2020, 2021);
    files.write("cert.pem", &certificate);
    files.write("key.pem", &key);
    assert!(matches!(tls.reload(), Err(TlsError::Expired { .. })));
    assert!(Arc::ptr_eq(&after, &tls.current()));
}

#[test]
fn the_files_to_watch_are_all_that_count() {
    let at = |name: &str| Path::new("/etc").join(name);
    let settings = TlsConfig {
        certificate: CertificateSource::Files {
            certificate: at("cert.pem"),
            key: at("key.pem"),
        },
        clients: ClientCertificates::Required {
            authorities: at("ca.pem"),
        },
    };
    assert_eq!(settings.files(), ["cert.pem", "key.pem", "ca.pem"].map(at));
}

#[cfg(not(feature = "acme"))]
#[test]
fn a_build_without_acme_says_so() {
    let settings = TlsConfig {
        certificate: CertificateSource::Acme {
            domains: vec!["llm.example.com".to_owned()],
            contact: None,
            directory: "https://acme.example/directory".to_owned(),
            directory_ca_file: None,
            folder: PathBuf::from("/nowhere"),
        },
        clients: ClientCertificates::Off,
    };
    let error = settings.check(&Clock::manual(NOW).0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "acme_domains is set, and this build cannot ask an authority for certificates"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_goes_nowhere_is_over_after_ten_seconds() {
    let tls = Files::new(pair()).tls().unwrap();
    let (ours, _theirs) = duplex(1024);
    let began = Instant::now();
    let error = tls.handshake(ours).await.err().unwrap();
    assert_eq!(error.to_string(), "it took longer than 10s");
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test]
async fn plain_text_is_no_handshake() {
    let tls = Files::new(pair()).tls().unwrap();
    let (ours, mut theirs) = duplex(1024);
    tokio::io::AsyncWriteExt::write_all(&mut theirs, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let error = tls.handshake(ours).await.err().unwrap();
    assert!(matches!(error, HandshakeError::Broken(_)), "{error}");
}
