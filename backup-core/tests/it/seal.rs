//! Sealed objects against the stock tools, a full disk and the limits of memory.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use backup_core::context::Context;
use backup_core::durable::{self, Durable, PRIVATE_FILE};
use backup_core::encrypt::{Identities, Recipients};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::seal::{OpenOptions, OpenReader, SealOptions, SealWriter, Sealed};

use crate::support::{left_out, run, tools};

/// Compresses to about a third, and differs everywhere.
fn text(size: usize) -> Vec<u8> {
    let line = |n: u64| format!("{}\t{n}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes();
    (0_u64..).flat_map(line).take(size).collect()
}

fn seal_to(path: &Path, plain: &[u8], options: &SealOptions) -> Result<Sealed> {
    let file = Durable::new().create_new(path, PRIVATE_FILE)?;
    let mut writer = SealWriter::new("object", file, options, &Context::new())?;
    writer.write_all(plain).map_err(|error| Error::io("write", path, error))?;
    let (sealed, file) = writer.finish()?;
    file.finish_and_sync_dir()?;
    Ok(sealed)
}

fn open_from(path: &Path, options: &OpenOptions) -> Result<Vec<u8>> {
    let mut reader = OpenReader::new("object", durable::open_read(path)?, options, &Context::new())?;
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map_err(|error| Error::io("read", path, error))?;
    Ok(plain)
}

#[test]
fn stock_tools_reproduce_every_byte_and_digest() {
    if !tools("stock_tools_reproduce_every_byte_and_digest", &["zstd", "age", "age-keygen", "sha256sum"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    run("age-keygen", &["-o", &at("identity")]);
    run("age-keygen", &["-o", &at("escrow")]);
    let recipients: Vec<String> = [at("identity"), at("escrow")]
        .iter()
        .map(|file| run("age-keygen", &["-y", file]).trim().to_owned())
        .collect();
    let sha256sum =
        |file: &str| run("sha256sum", &[file]).split(' ').next().unwrap().parse::<Digest>().unwrap();

    for size in [0, 1, 100_000, 7 << 20] {
        for recipients in [None, Some(Recipients::parse(&recipients).unwrap())] {
            let options = SealOptions { recipients, ..Default::default() };
            let (stored, frame, plain) =
                (at(&format!("o{size}{}", options.suffix())), at("frame"), at("plain"));
            let content = text(size);
            let sealed = seal_to(Path::new(&stored), &content, &options).unwrap();
            assert_eq!(sha256sum(&stored), sealed.stored_sha256);
            for identity in ["identity", "escrow"] {
                if options.recipients.is_some() {
                    run("age", &["-d", "-i", &at(identity), "-o", &frame, &stored]);
                } else {
                    std::fs::copy(&stored, &frame).unwrap();
                }
                run("zstd", &["-d", "-q", "-f", &frame, "-o", &plain]);
                assert_eq!(std::fs::read(&plain).unwrap(), content);
                assert_eq!(sha256sum(&plain), sealed.sha256);
                if size > 0 {
                    assert!(run("zstd", &["-l", "-v", &frame]).contains("XXH64"));
                }
            }
        }
    }
}

#[test]
fn what_stock_tools_seal_opens_here() {
    if !tools("what_stock_tools_seal_opens_here", &["zstd", "age", "age-keygen"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("plain"), text(3 << 20)).unwrap();
    run("age-keygen", &["-o", &at("identity")]);
    run("zstd", &["-q", "-3", "-T2", &at("plain"), "-o", &at("o.zst")]);
    let recipient = run("age-keygen", &["-y", &at("identity")]);
    run("age", &["-r", recipient.trim(), "-o", &at("o.zst.age"), &at("o.zst")]);

    let identities = Identities::from_file(at("identity")).unwrap();
    assert_eq!(identities.recipients().unwrap().to_strings(), [recipient.trim()]);
    assert_eq!(open_from(at("o.zst").as_ref(), &OpenOptions::default()).unwrap(), text(3 << 20));
    let options = OpenOptions { encrypted: true, identities, expected: None };
    assert_eq!(open_from(at("o.zst.age").as_ref(), &options).unwrap(), text(3 << 20));
}

#[test]
fn our_identity_file_is_read_by_stock_age() {
    if !tools("our_identity_file_is_read_by_stock_age", &["age-keygen"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity");
    let identities = Identities::generate();
    Durable::new().write_new(&path, identities.to_file_text().as_bytes(), PRIVATE_FILE).unwrap();
    let recipient = run("age-keygen", &["-y", &path.display().to_string()]);
    assert_eq!(identities.recipients().unwrap().to_strings(), [recipient.trim()]);
}

#[test]
fn an_armoured_or_passphrase_object_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o");
    let scrypt = age::Encryptor::with_user_passphrase("correct horse".to_owned().into());
    let mut sealed = Vec::new();
    let mut writer = scrypt.wrap_output(&mut sealed).unwrap();
    writer.write_all(b"x").unwrap();
    writer.finish().unwrap();
    for (bytes, kind) in [
        (sealed.as_slice(), ErrorKind::KeyRejected),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", ErrorKind::Corrupt),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let options = OpenOptions { encrypted: true, identities: Identities::generate(), expected: None };
        assert_eq!(open_from(&path, &options).unwrap_err().kind(), kind);
    }
}

/// A file system of 1 MiB that is unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs", &path]).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        left_out(test, "a tmpfs can only be mounted by root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(
            std::thread::panicking() || unmounted.is_ok_and(|status| status.success()),
            "the small disk stays mounted"
        );
    }
}

#[test]
fn a_full_disk_is_no_space_names_the_path_and_leaves_nothing() {
    let Some(disk) = SmallDisk::mount("a_full_disk_is_no_space_names_the_path_and_leaves_nothing") else {
        return;
    };
    let path = disk.0.path().join("object.zst");
    assert!(durable::free_space(disk.0.path()).unwrap() <= 1 << 20);
    for recipients in [None, Some(Identities::generate().recipients().unwrap())] {
        let options = SealOptions { recipients, ..Default::default() };
        let error = seal_to(&path, &text(16 << 20), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("object.zst"), "{error}");
        assert!(error.hint().is_some());
        assert!(!path.exists());
    }
    let error = Durable::new().write_new(&path, &vec![7; 2 << 20], PRIVATE_FILE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(std::fs::read_dir(disk.0.path()).unwrap().count(), 0);
    // The room is free again.
    seal_to(&path, &text(100_000), &SealOptions::default()).unwrap();
}
