//! Packed files: what is inside, what stock tools say, what a failure leaves.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use backup_core::context::{Cancel, Context};
use backup_core::durable::{Durable, Event};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::pack::{PackFormat, PackOptions, Packed, Packer};

use crate::support::{run, tools};

fn create(path: &Path) -> Result<Packer> {
    let options = PackOptions { seconds: 1_700_000_000, ..Default::default() };
    Packer::create(path, &options, &Durable::new(), &Context::new())
}

fn pack(path: &Path, objects: &[(&str, &[u8])]) -> Result<Packed> {
    let mut packer = create(path)?;
    for (name, bytes) in objects {
        packer.add(name, bytes.len() as u64, *bytes)?;
    }
    packer.finish()
}

fn sample() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("manifest.json", b"{}".to_vec()),
        ("database/app.db", (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect()),
        ("empty", Vec::new()),
    ]
}

#[test]
fn both_forms_hold_every_object_and_stock_tools_unpack_them() {
    if !tools(
        "both_forms_hold_every_object_and_stock_tools_unpack_them",
        &["tar", "gzip", "zstd", "sha256sum"],
    ) {
        return;
    }
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(90));
    let mut objects = sample();
    objects.push((long.as_str(), b"long".to_vec()));
    let objects: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    for ending in ["tar.gz", "tgz", "tar.zst"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("out.{ending}"));
        let packed = pack(&path, &objects).unwrap();
        assert_eq!((packed.objects, packed.size_bytes), (4, fs::metadata(&path).unwrap().len()));
        assert_eq!(packed.sha256, Digest::of(&fs::read(&path).unwrap()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let unpacked = dir.path().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        run("tar", &["-xf", path.to_str().unwrap(), "-C", unpacked.to_str().unwrap()]);
        for (name, bytes) in &objects {
            assert_eq!(fs::read(unpacked.join(name)).unwrap(), *bytes, "{name}");
        }
        let listed = run("tar", &["-tf", path.to_str().unwrap()]);
        assert_eq!(
            listed.lines().collect::<Vec<_>>(),
            objects.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        );
    }
}

#[test]
fn the_same_objects_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let objects = sample();
    let objects: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    for ending in ["tar.gz", "tar.zst"] {
        let made = ["a", "b"]
            .map(|name| pack(&dir.path().join(format!("{name}.{ending}")), &objects).unwrap().sha256);
        assert_eq!(made[0], made[1]);
    }
}

#[test]
fn the_form_is_taken_from_the_name() {
    for (name, format) in [
        ("x.tar.gz", Some(PackFormat::TarGz)),
        ("x.TGZ", Some(PackFormat::TarGz)),
        ("x.tar.zst", Some(PackFormat::TarZst)),
        ("x.tzst", Some(PackFormat::TarZst)),
        ("x.zip", None),
        (".tgz", None),
        ("tar.gz", None),
    ] {
        match PackFormat::of(name) {
            Ok(found) => assert_eq!(Some(found), format, "{name}"),
            Err(error) => assert_eq!((error.kind(), format), (ErrorKind::InvalidInput, None), "{name}"),
        }
    }
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.tar.gz");
    fs::write(&path, b"mine").unwrap();
    assert_eq!(create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    // Nor one that appears while packing.
    fs::remove_file(&path).unwrap();
    let mut packer = create(&path).unwrap();
    packer.add("a", 1, &b"x"[..]).unwrap();
    fs::write(&path, b"mine").unwrap();
    assert_eq!(packer.finish().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_failure_leaves_nothing_and_nothing_more_is_taken() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::new(ErrorKind::Corrupt, "damaged").into())
        }
    }
    for ending in ["tar.gz", "tar.zst"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("out.{ending}"));
        let mut packer = create(&path).unwrap();
        packer.add("ok", 2, &b"ok"[..]).unwrap();
        for name in ["../x", "/x", "ok", ""] {
            assert_eq!(
                packer.add(name, 0, io::empty()).unwrap_err().kind(),
                ErrorKind::InvalidName,
                "{name}"
            );
        }
        assert_eq!(packer.add("b", 3, Broken).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(packer.add("c", 1, &b"x"[..]).is_err());
        assert!(packer.finish().is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        for (size, bytes) in [(3, &b"xy"[..]), (1, b"xy")] {
            let mut packer = create(&path).unwrap();
            assert_eq!(packer.add("a", size, bytes).unwrap_err().kind(), ErrorKind::Mismatch);
        }
        drop(create(&path).unwrap());
        let cancel = Cancel::new();
        let ctx = Context::new().with_cancel(cancel.clone());
        let mut packer = Packer::create(&path, &PackOptions::default(), &Durable::new(), &ctx).unwrap();
        cancel.cancel();
        assert!(matches!(packer.add("a", 1, &b"x"[..]), Err(Error::Cancelled)));
        drop(packer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_pack_is_synced_before_it_gets_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let durable = Durable::with_observer(move |event| log.lock().unwrap().push(event.clone()));
    let path = dir.path().join("out.tar.gz");
    Packer::create(&path, &PackOptions::default(), &durable, &Context::new()).unwrap().finish().unwrap();
    let seen = seen.lock().unwrap();
    let [Event::Created(made), Event::FileSynced(synced), Event::Renamed(from, to), Event::DirSynced(parent)] =
        seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!((made, synced, to.as_path(), parent.as_path()), (from, from, path.as_path(), dir.path()));
}
