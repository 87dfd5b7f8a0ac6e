//! Certificates made by OpenSSL: captured as files, judged at the capture and when they come back.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::conformance::{self, Subject};
use crate::cli::Machine;

struct Certs {
    folder: tempfile::TempDir,
    made: u32,
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
}

/// A certificate and its key, of a kind that OpenSSL knows by `kind`.
fn make(folder: &Path, certificate: &str, key: &str, kind: &[&str], name: &str, days: &str) {
    let (certificate, key) = (folder.join(certificate), folder.join(key));
    let subject = format!("/CN={name}");
    let names = format!("subjectAltName=DNS:{name},DNS:www.{name},IP:192.0.2.7");
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let fixed = ["req", "-x509", "-nodes", "-subj", &subject, "-addext", &names, "-days", days];
    let more = [
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-out",
        &path(&certificate),
        "-keyout",
        &path(&key),
    ];
    openssl(&[&fixed[..], kind, &more].concat());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const RSA: [&str; 2] = ["-newkey", "rsa:2048"];
const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const ED25519: [&str; 2] = ["-newkey", "ed25519"];

impl Certs {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), made: 0 }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Subject for Certs {
    fn address(&self) -> String {
        format!("certs:{}", self.path("letsencrypt").display())
    }
    fn vacant(&mut self) -> String {
        self.made += 1;
        format!("certs:{}", self.path(&format!("restored-{}", self.made)).display())
    }
    fn fill(&mut self) {
        // As certbot lays them out: links into an archive.
        let (archive, live) = (self.path("letsencrypt/archive/shop"), self.path("letsencrypt/live/shop"));
        std::fs::create_dir_all(&archive).unwrap();
        std::fs::create_dir_all(&live).unwrap();
        make(&archive, "fullchain1.pem", "privkey1.pem", &EC, "shop.example", "90");
        for name in ["fullchain", "privkey"] {
            symlink(format!("../../archive/shop/{name}1.pem"), live.join(format!("{name}.pem"))).unwrap();
        }
        make(&self.path("letsencrypt"), "rsa.crt", "rsa.key", &RSA, "old.example", "90");
        make(&self.path("letsencrypt"), "ed.crt", "ed.key", &ED25519, "new.example", "90");
        std::fs::write(self.path("letsencrypt/renewal.conf"), "# settings\n".repeat(500)).unwrap();
        // What does not compress, so that there is a pack worth damaging.
        let mut noise = [0; 16 << 10];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        std::fs::write(self.path("letsencrypt/dhparam.bin"), noise).unwrap();
    }
    fn change(&mut self) {
        make(&self.path("letsencrypt"), "rsa.crt", "rsa.key", &RSA, "old.example", "90");
    }
    fn content(&self, address: &str) -> String {
        let folder = address.strip_prefix("certs:").unwrap();
        let command =
            "cd \"$1\" && find . -printf '%p %m %U %l\\n' | sort && find . -type f | sort | xargs sha256sum";
        let output = Command::new("sh").args(["-c", command, "sh", folder]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
    fn nowhere(&self) -> String {
        format!("certs:{}", self.path("missing").display())
    }
}

#[test]
fn certificates_are_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Certs::new());
}

#[test]
fn certificates_that_are_not_there_give_no_snapshot() {
    conformance::nothing_there(&Certs::new());
}

#[test]
fn damage_in_the_repository_leaves_a_folder_of_certificates_as_it_was() {
    conformance::damage_reaches_no_target(&mut Certs::new());
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_and_said_again() {
    let mut subject = Certs::new();
    subject.fill();
    let machine = Machine::with_repository();
    let said = machine.run(&["--json", "backup", &subject.address()]);
    assert_eq!((said.code, &said.json()["warnings"]), (0, &serde_json::json!([])), "{}", said.stderr);

    let folder = subject.path("letsencrypt");
    make(&folder, "soon.crt", "soon.key", &EC, "soon.example", "3");
    make(&folder, "mixed.crt", "other.key", &EC, "mixed.example", "90");
    std::fs::copy(folder.join("rsa.key"), folder.join("mixed.key")).unwrap();
    std::fs::set_permissions(folder.join("ed.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = machine.run(&["backup", &subject.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let expected = [
        "soon.crt (soon.example) ends in ",
        "mixed.key is not the key of mixed.crt (mixed.example)",
        "ed.key can be read by everybody (mode 0644)",
    ];
    assert!(expected.iter().all(|text| said.stderr.contains(text)), "{}", said.stderr);
    let target = subject.vacant();
    let said = machine.run(&["restore", "latest", "--to", &target]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(expected.iter().all(|text| said.stderr.contains(text)), "{}", said.stderr);
    assert!(said.stdout.contains("with the key that fits"), "{}", said.stdout);
    let key = std::fs::metadata(subject.path("restored-1/rsa.key")).unwrap();
    assert_eq!(key.mode() & 0o7777, 0o600);

    let facts = machine.run(&["--json", "restore", "latest", "--to", &subject.vacant()]).json();
    assert_eq!(facts["facts"]["certs"]["certificates"], 6, "{facts}");
    // A folder of other things is none of certificates.
    std::fs::create_dir(subject.path("empty")).unwrap();
    let said = machine.run(&["backup", &format!("certs:{}", subject.path("empty").display())]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("holds no certificate"), "{}", said.stderr);
}
