//! Throwaway servers.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::context::Context;
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};

use crate::support;

const HOLD: &str = "ATTESTORE_TEST_HOLD";

fn start() -> ScratchCluster {
    let options = ClusterOptions { tools: support::tools(), ..ClusterOptions::default() };
    ScratchCluster::start(&options, &Context::new()).unwrap()
}

fn gone(folder: &Path) -> bool {
    let begun = Instant::now();
    while folder.exists() {
        if begun.elapsed() > Duration::from_secs(30) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn process(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    format!("/proc/{}", text.lines().next().unwrap())
}

#[test]
fn a_dropped_cluster_leaves_no_server_and_no_folder() {
    let cluster = start();
    let (folder, server) = (cluster.folder().to_owned(), process(cluster.folder()));
    assert!(Path::new(&server).exists());
    drop(cluster);
    assert!(!folder.exists() && !Path::new(&server).exists());
}

#[test]
fn a_killed_process_leaves_no_server_and_no_folder() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["cluster::held_until_killed", "--exact", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let folder =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("cluster: ").map(str::to_owned));
    let folder = folder.unwrap();
    let server = process(Path::new(&folder));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(Path::new(&folder)), "{folder} is left");
    assert!(!Path::new(&server).exists());
}

/// What the test above kills; without its variable there is nothing to do.
#[test]
fn held_until_killed() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let cluster = start();
    println!("cluster: {}", cluster.folder().display());
    std::thread::sleep(Duration::from_secs(120));
}

#[test]
fn a_server_that_does_not_start_says_why_and_is_removed() {
    let parent = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let options = ClusterOptions {
        tools: support::tools(),
        parent: Some(parent.path().to_owned()),
        settings: vec![("shared_buffers".into(), "nonsense".into())],
        ..ClusterOptions::default()
    };
    let error = ScratchCluster::start(&options, &Context::new()).unwrap_err();
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}
