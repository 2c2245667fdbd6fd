//! Sealed objects: round trips, damage of every kind, the stock tools and a full disk.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use backup_core::context::{Cancel, Context};
use backup_core::durable::{self, Durable, PRIVATE_FILE};
use backup_core::encrypt::{Identities, Recipients};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::seal::{OpenOptions, OpenReader, SealOptions, SealWriter, Sealed, check_stored};
use proptest::prelude::*;

use crate::support::{left_out, run, tools};

/// What is handled at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// Compresses to about a third, and differs everywhere.
fn text(size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 64);
    for line in 0_u64.. {
        if text.len() >= size {
            break;
        }
        writeln!(text, "{}\t{line}", line.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
    }
    text.truncate(size);
    text
}

fn seal(plain: &[u8], options: &SealOptions) -> (Sealed, Vec<u8>) {
    let mut writer = SealWriter::new("object", Vec::new(), options, &Context::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn open(stored: &[u8], options: &OpenOptions) -> Result<Vec<u8>> {
    let mut reader = OpenReader::new("object", stored, options, &Context::new())?;
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map_err(|error| Error::io("read", "object", error))?;
    reader.finish().map(|_| plain)
}

fn both(identities: &Identities) -> [(SealOptions, OpenOptions); 2] {
    let sealing = SealOptions { recipients: Some(identities.recipients().unwrap()), ..Default::default() };
    let opening = OpenOptions { encrypted: true, identities: identities.clone(), expected: None };
    [Default::default(), (sealing, opening)]
}

#[test]
fn what_is_sealed_opens_and_the_figures_are_true() {
    let identities = Identities::generate();
    for (sealing, opening) in both(&identities) {
        for size in [0, 1, 5, BUFFER - 1, BUFFER, BUFFER + 1, 5 * BUFFER + 3] {
            let plain = text(size);
            let (sealed, stored) = seal(&plain, &sealing);
            assert_eq!(sealed.size_bytes, size as u64);
            assert_eq!(sealed.sha256, Digest::of(&plain));
            assert_eq!(sealed.stored_size_bytes, stored.len() as u64);
            assert_eq!(sealed.stored_sha256, Digest::of(&stored));
            let opening = OpenOptions { expected: Some(sealed), ..opening.clone() };
            assert_eq!(open(&stored, &opening).unwrap(), plain, "{size}");
        }
    }
}

#[test]
fn small_and_large_writes_give_the_same_object() {
    for size in [10, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 3 * BUFFER + 7, 5 << 20] {
        let plain = text(size);
        let (sealed, stored) = seal(&plain, &SealOptions::default());
        for step in [777, BUFFER, BUFFER + 1] {
            let mut writer =
                SealWriter::new("object", Vec::new(), &SealOptions::default(), &Context::new()).unwrap();
            for piece in plain.chunks(step) {
                writer.write_all(piece).unwrap();
            }
            let (again, bytes) = writer.finish().unwrap();
            assert_eq!(sealed, again, "{size} {step}");
            assert!(stored == bytes, "{size} {step}");
        }
    }
}

#[test]
fn a_small_objects_frame_tells_its_size() {
    for size in [0, 1, BUFFER] {
        let (_, stored) = seal(&text(size), &SealOptions::default());
        let told = zstd::zstd_safe::get_frame_content_size(&stored).unwrap();
        assert_eq!(told, Some(size as u64));
    }
}

#[test]
fn threads_do_not_change_the_plain_bytes() {
    let plain = text(9 << 20);
    for workers in [0, 1, 3] {
        let options = SealOptions { workers: Some(workers), ..Default::default() };
        let (sealed, stored) = seal(&plain, &options);
        let opening = OpenOptions { expected: Some(sealed), ..Default::default() };
        assert_eq!(open(&stored, &opening).unwrap(), plain);
    }
}

#[test]
fn a_pledged_size_must_be_kept() {
    for (pledged, size) in [(10, 9), (10, 11), (3 << 20, 1 << 20), (1 << 20, 3 << 20)] {
        let options = SealOptions { pledged_size: Some(pledged), ..Default::default() };
        let mut writer = SealWriter::new("object", Vec::new(), &options, &Context::new()).unwrap();
        let wrote = writer.write_all(&text(size));
        let ended = wrote.map_err(|error| Error::io("write", "object", error)).and_then(|()| writer.finish());
        assert!(ended.is_err(), "{pledged} {size}");
    }
    let (_, stored) = seal(&text(5), &SealOptions { pledged_size: Some(5), ..Default::default() });
    assert_eq!(zstd::zstd_safe::get_frame_content_size(&stored).unwrap(), Some(5));
}

#[test]
fn every_object_carries_zstds_checksum() {
    for workers in [0, 2] {
        let (_, stored) = seal(b"x", &SealOptions { workers: Some(workers), ..Default::default() });
        assert_eq!(stored[..4], [0x28, 0xB5, 0x2F, 0xFD]);
        assert_eq!(stored[4] & 4, 4);
    }
}

#[test]
fn levels_out_of_range_are_refused() {
    for level in [0, -1, 20, 22] {
        let options = SealOptions { level, ..Default::default() };
        let error = SealWriter::new("object", Vec::new(), &options, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn cut_followed_and_foreign_objects_are_damage() {
    let identities = Identities::generate();
    for (sealing, opening) in both(&identities) {
        let (_, stored) = seal(&text(300_000), &sealing);
        for cut in [0, 1, 4, 5, 100, stored.len() / 2, stored.len() - 4, stored.len() - 1] {
            let error = open(&stored[..cut], &opening).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}");
        }
        for more in [b"x".as_slice(), &stored, &[0; 70_000], &[0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]] {
            let followed = [&stored, more].concat();
            let error = open(&followed, &opening).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
    // Two frames inside one age file; a skippable frame first; a frame without checksum.
    let (_, frame) = seal(b"plain", &SealOptions::default());
    let twice = [frame.clone(), frame.clone()].concat();
    let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0], frame.as_slice()].concat();
    let unchecked = zstd::encode_all(&b"plain"[..], 3).unwrap();
    for stored in [twice, skippable, unchecked] {
        assert_eq!(open(&stored, &OpenOptions::default()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_wrong_identity_is_a_rejected_key_that_names_the_object_and_its_recipients() {
    let (one, two, other) = (Identities::generate(), Identities::generate(), Identities::generate());
    let mut owners = one.clone();
    owners.extend(two.clone());
    let sealing = SealOptions { recipients: Some(owners.recipients().unwrap()), ..Default::default() };
    let (_, stored) = seal(b"plain", &sealing);
    for identities in [one, two] {
        let opening = OpenOptions { encrypted: true, identities, expected: None };
        assert_eq!(open(&stored, &opening).unwrap(), b"plain");
    }
    for (identities, have) in [(other, "none of the 1 "), (Identities::none(), "none of the 0 ")] {
        let opening = OpenOptions { encrypted: true, identities, expected: None };
        let error = open(&stored, &opening).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyRejected);
        let text = error.to_string();
        assert!(text.contains("object") && text.contains(have) && text.contains("2 X25519"), "{text}");
    }
}

#[test]
fn a_recorded_figure_that_differs_is_named() {
    let (sealed, stored) = seal(b"plain", &SealOptions::default());
    let zero = Digest([0; 32]);
    let cases = [
        (Sealed { size_bytes: 4, ..sealed }, "size in bytes"),
        (Sealed { size_bytes: 6, ..sealed }, "size in bytes"),
        (Sealed { sha256: zero, ..sealed }, "sha256"),
        (Sealed { stored_size_bytes: 1, ..sealed }, "size of the stored bytes"),
        (Sealed { stored_sha256: zero, ..sealed }, "sha256 of the stored bytes"),
    ];
    for (expected, name) in cases {
        let opening = OpenOptions { expected: Some(expected), ..Default::default() };
        match open(&stored, &opening).unwrap_err() {
            Error::Digest { object, what, .. } => assert_eq!((object.as_str(), what), ("object", name)),
            other => panic!("{other}"),
        }
        let stored_only = check_stored("object", stored.as_slice(), &expected, &Context::new());
        assert_eq!(stored_only.is_err(), name.contains("stored"), "{name}");
    }
}

#[test]
fn a_reader_that_stops_early_has_the_rest_checked_by_finish() {
    let (sealed, stored) = seal(&text(1 << 20), &SealOptions::default());
    let opening = OpenOptions { expected: Some(sealed), ..Default::default() };
    let mut reader = OpenReader::new("object", stored.as_slice(), &opening, &Context::new()).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(reader.finish().unwrap(), sealed);
}

#[test]
fn a_dropped_writer_leaves_an_object_that_does_not_open() {
    let identities = Identities::generate();
    for (sealing, opening) in both(&identities) {
        for size in [0, 10, 3 << 20] {
            let mut stored = Vec::new();
            let mut writer = SealWriter::new("object", &mut stored, &sealing, &Context::new()).unwrap();
            writer.write_all(&text(size)).unwrap();
            drop(writer);
            assert_eq!(open(&stored, &opening).unwrap_err().kind(), ErrorKind::Corrupt, "{size}");
        }
    }
}

#[test]
fn cancelling_stops_both_directions_with_its_own_kind() {
    let cancel = Cancel::new();
    let ctx = Context::new().with_cancel(cancel.clone());
    let (_, stored) = seal(&text(1 << 20), &SealOptions::default());
    let mut writer = SealWriter::new("object", Vec::new(), &SealOptions::default(), &ctx).unwrap();
    let mut reader = OpenReader::new("object", stored.as_slice(), &OpenOptions::default(), &ctx).unwrap();
    cancel.cancel();
    let wrote = writer.write_all(&text(1 << 20)).map_err(|error| Error::io("write", "object", error));
    assert!(matches!(wrote, Err(Error::Cancelled)));
    assert!(writer.finish().is_err());
    let read = reader.read(&mut [0; 10]).map_err(|error| Error::io("read", "object", error));
    assert!(matches!(read, Err(Error::Cancelled)));
}

#[test]
fn a_failed_output_fails_the_object_with_the_outputs_own_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0 < buf.len() {
                return Err(Error::io("write", "/the/path", io::ErrorKind::StorageFull.into()).into());
            }
            self.0 -= buf.len();
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let identities = Identities::generate();
    for (sealing, _) in both(&identities) {
        let mut writer = SealWriter::new("object", Full(100_000), &sealing, &Context::new()).unwrap();
        let ended = writer
            .write_all(&text(8 << 20))
            .map_err(|error| Error::io("write", "object", error))
            .and_then(|()| writer.finish().map(drop));
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("/the/path"), "{error}");
    }
}

#[test]
fn a_failing_input_is_not_called_damage() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let identities = Identities::generate();
    for (sealing, opening) in both(&identities) {
        let (_, stored) = seal(&text(1 << 20), &sealing);
        let input = stored[..stored.len() / 2].chain(Broken);
        let reader = OpenReader::new("object", input, &opening, &Context::new()).unwrap();
        assert_eq!(reader.finish().unwrap_err().kind(), ErrorKind::Permission);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_flipped_bit_is_noticed_when_the_digest_is_known(size in 0_usize..200_000, at: prop::sample::Index, bit in 0_u8..8) {
        let identities = Identities::generate();
        for (sealing, opening) in both(&identities) {
            let (sealed, mut stored) = seal(&text(size), &sealing);
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            let opening = OpenOptions { expected: Some(sealed), ..opening.clone() };
            prop_assert!(open(&stored, &opening).is_err());
            prop_assert!(check_stored("object", stored.as_slice(), &sealed, &Context::new()).is_err());
        }
    }

    #[test]
    fn any_flipped_bit_of_an_encrypted_object_is_noticed_without_a_digest(size in 0_usize..200_000, at: prop::sample::Index, bit in 0_u8..8) {
        let identities = Identities::generate();
        let [_, (sealing, opening)] = both(&identities);
        let (_, mut stored) = seal(&text(size), &sealing);
        let at = at.index(stored.len());
        stored[at] ^= 1 << bit;
        prop_assert!(open(&stored, &opening).is_err());
    }

    /// Some header bits (the window's size, whether there is one) say nothing about the content: a flip there may pass
    /// without a digest, but never with another content.
    #[test]
    fn a_flipped_bit_of_a_plain_object_never_gives_other_bytes_without_a_digest(size in 0_usize..200_000, at: prop::sample::Index, bit in 0_u8..8) {
        let plain = text(size);
        let (_, mut stored) = seal(&plain, &SealOptions::default());
        let at = at.index(stored.len());
        stored[at] ^= 1 << bit;
        if let Ok(found) = open(&stored, &OpenOptions::default()) {
            prop_assert!(matches!(at, 4 | 5), "outside the frame's header: {}", at);
            prop_assert_eq!(found, plain);
        }
    }
}

#[test]
fn every_single_flipped_bit_of_a_small_object_is_noticed() {
    let identities = Identities::generate();
    for (sealing, opening) in both(&identities) {
        let plain = text(40);
        let (sealed, stored) = seal(&plain, &sealing);
        let known = OpenOptions { expected: Some(sealed), ..opening.clone() };
        for at in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(open(&flipped, &known).is_err(), "bit {at}");
            if let Ok(found) = open(&flipped, &opening) {
                assert!(matches!(at / 8, 4 | 5) && found == plain, "bit {at}");
            }
        }
    }
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
