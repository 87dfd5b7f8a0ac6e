//! Files that came back wrong: contents, modes, the owner of a volume's root, certificates.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::ends;
use crate::cli::Machine;

fn openssl(folder: &Path, script: &str) {
    let said = Command::new("sh").arg("-ec").arg(script).current_dir(folder).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// A key and a certificate for `name`, valid from and until these days (`YYYYMMDD`).
fn certificate(folder: &Path, name: &str, from: &str, until: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let script = format!(
        "printf '[ca]\\ndefault_ca = it\\n[it]\\nnew_certs_dir = .\\ndatabase = index\\nserial = serial\\n\
         default_md = sha256\\npolicy = any\\n[any]\\ncommonName = supplied\\n' > conf
         : > index; echo 01 > serial
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out csr -subj /CN={name}.example
         openssl ca -batch -selfsign -config conf -keyfile {name}.key -in csr -out {name}.crt -notext \
             -startdate {from}000000Z -enddate {until}000000Z
         rm -f conf index* serial* csr *.pem"
    );
    openssl(folder, &script);
}

fn volume() -> Machine {
    let machine = Machine::with_repository();
    machine.file("volume/data/a.conf", "listen 80");
    machine.file("volume/data/b.bin", vec![7; 100_000]);
    certificate(&machine.path("volume/tls"), "shop", "20200101", "20600101");
    std::fs::set_permissions(machine.path("volume/tls/shop.key"), PermissionsExt::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(machine.path("volume"), Some(999), Some(998)).unwrap();
    }
    let said = machine.run(&["backup", "--job", "volume", "volume"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    machine
}

const CHECKS: [&str; 6] = ["--check", "files", "--check", "modes", "--check", "certificates"];

#[test]
fn what_is_wrong_with_files_is_caught_and_named() {
    let machine = volume();
    let healthy = [
        "✓ files          4 files read back, contents equal",
        "✓ modes          modes of",
        "✓ certificates   1 certificate valid, the first to end in 1",
        "; 1 key matches",
    ];
    ends(&machine, &CHECKS, 0, &healthy);
    // What is done to the restored volume, where it lies, and what must be said.
    let sabotage: [(&str, i32, &[&str]); 6] = [
        ("echo x >> volume/data/a.conf", 20, &["✗ files", "/volume/data/a.conf: its length is wrong"]),
        (
            "printf X | dd of=volume/data/b.bin bs=1 seek=5000 conv=notrunc",
            20,
            &["b.bin: its content is wrong"],
        ),
        ("rm volume/data/a.conf", 20, &["✗ files", "/volume/data/a.conf: it is missing"]),
        ("chmod 644 volume/tls/shop.key", 20, &["✗ modes", "/volume/tls/shop.key: mode 0644, expected 0600"]),
        (
            "openssl ecparam -genkey -name prime256v1 -noout -out volume/tls/shop.key",
            20,
            &[
                "✗ certificates",
                "volume/tls/shop.key: a key that does not match, expected the key of",
                "✗ files",
            ],
        ),
        (
            "rm -r volume/tls; mkdir volume/tls",
            20,
            &["✗ certificates", "none, expected at least one certificate"],
        ),
    ];
    for (step, code, told) in sabotage {
        // The snapshot holds the whole path of what was backed up.
        let step =
            format!("cd \"$LIFEBOAT_DRILL_PATH\"$(dirname {}) && {step}", machine.path("volume").display());
        ends(&machine, &[&["--step", step.as_str()], &CHECKS[..]].concat(), code, told);
    }
}

#[test]
fn a_volume_whose_root_belongs_to_another_is_caught() {
    let machine = volume();
    if !rustix::process::geteuid().is_root() {
        // Owners cannot be restored: a check of them is skipped, and that is no pass.
        ends(&machine, &["--check", "owners"], 21, &["– owners", "skipped"]);
        return;
    }
    let owners = ["--check", "owners"];
    ends(&machine, &owners, 0, &["✓ owners         owners of"]);
    let step = format!("chown 0:0 \"$LIFEBOAT_DRILL_PATH\"{}", machine.path("volume").display());
    let told = ["✗ owners", "/volume: owner 0:0, expected 999:998", "DATA WRONG"];
    ends(&machine, &[&["--step", step.as_str()], &owners[..]].concat(), 20, &told);
}

#[test]
fn certificates_that_were_backed_up_wrong_are_caught() {
    let machine = Machine::with_repository();
    certificate(&machine.path("old"), "old", "20200101", "20210101");
    certificate(&machine.path("soon"), "later", "20600101", "20610101");
    certificate(&machine.path("other"), "other", "20200101", "20600101");
    certificate(&machine.path("swapped"), "site", "20200101", "20600101");
    std::fs::copy(machine.path("other/other.key"), machine.path("swapped/site.key")).unwrap();
    for name in ["old", "soon", "other", "swapped"] {
        let said = machine.run(&["backup", "--job", name, name]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let drill = |job: &str, check: &str, code: i32, told: &[&str]| {
        ends(&machine, &["--snapshot", &format!("{job}@latest"), "--check", check], code, told);
    };
    drill("old", "certificates", 21, &["old.crt (old.example): expired on 2021-01-01, expected valid"]);
    drill("soon", "certificates", 21, &["later.crt (later.example): not valid before 2060-01-01"]);
    drill("swapped", "certificates", 21, &["site.key: a key that does not match, expected the key of"]);
    drill("other", "certificates", 0, &["1 key matches"]);
    drill("other", "certificates=20000d", 21, &["expected valid for 20000 d more"]);
}
