//! Backups of a PostgreSQL database against `pg_dump` in its three usual forms, and against restic and pgcopydb where installed.
//!
//! `cargo bench -p benches --bench postgres`; `ATTESTORE_BENCH_PG_MB` sets the size of the database (default 1000; 50 for a
//! quick look). Half of it is one audit table with a chain, a quarter JSON events with indexes, a quarter blobs that do
//! not compress. A server of its own is made and removed.
//!
//! Ours runs as a process of its own (`--child`), so that its memory can be seen.
#![allow(clippy::print_stdout, missing_docs)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use audit_chain::formats::native::Native;
use audit_chain::keys::KeyRing;
use audit_chain::native::NativeHead;
use audit_chain::report::Verdict;
use backup_core::context::Context;
use backup_core::repository::{
    BackupRequest, LATEST, ReadOptions, Repository, RepositoryOptions, SourceRequest,
};
use backup_core::traits::{BackupObjects as _, ChainRequest};
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::parallel::ParallelOptions;
use backup_postgres::tools::ToolOptions;
use backup_postgres::{Address, Environment, PostgresSource, SourceOptions};
use benches::{Result, Table, folder, measure, median, runs, seconds, verdict};

/// What the children are told by.
const CHILD: &str = "--child";
/// The memory that ours must stay under, in bytes.
const MEMORY: u64 = 128 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        let [url, repository, jobs, chain] = arguments.get(at + 1..at + 5).ok_or("four arguments")? else {
            return Err("four arguments".into());
        };
        return child(url, Path::new(repository), jobs.parse()?, chain == "chain");
    }
    let megabytes: u64 =
        std::env::var("ATTESTORE_BENCH_PG_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let folder = folder()?;
    let ctx = Context::new();
    let settings = [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("autovacuum", "off")];
    let options = ClusterOptions {
        tools: tools(),
        settings: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..ClusterOptions::default()
    };
    let cluster = ScratchCluster::start(&options, &ctx)?;
    fill(&cluster.url("postgres"), megabytes)?;
    let bench = Bench { url: cluster.url("postgres"), folder: folder.path().to_owned(), cluster };
    bench.run(megabytes)
}

fn tools() -> ToolOptions {
    ToolOptions { folder: None, path: std::env::var_os("PATH") }
}

/// One backup of ours, in a process of its own.
fn child(url: &str, repository: &Path, jobs: usize, chained: bool) -> Result<()> {
    let options = SourceOptions {
        tools: tools(),
        globals: false,
        parallel: ParallelOptions { jobs, ..ParallelOptions::default() },
        count_rows: false,
        ..SourceOptions::default()
    };
    let source = PostgresSource::with_options(Address::parse(url, &Environment::default())?, options);
    let chains = if chained {
        vec![ChainRequest {
            format: Arc::new(Native),
            table: Some("audit".into()),
            keys: KeyRing::default(),
            checkpoint: None,
            copy: false,
        }]
    } else {
        Vec::new()
    };
    let repository = Repository::init(repository, &RepositoryOptions::default())?;
    let request = BackupRequest {
        sources: vec![SourceRequest { snapshot: &source, chains }],
        ..BackupRequest::default()
    };
    let outcome = repository.backup(&request, &Context::new())?;
    let intact = outcome
        .reports
        .iter()
        .flat_map(|source| &source.chains)
        .all(|chain| chain.verdict == Verdict::Intact);
    if intact { Ok(()) } else { Err("the chain is not intact".into()) }
}

/// Fills the database: half of it the chain, a quarter events, a quarter blobs.
fn fill(url: &str, megabytes: u64) -> Result<()> {
    let mut client = postgres::Client::connect(url, postgres::NoTls)?;
    client.batch_execute(
        "CREATE TABLE audit (chain text, seq bigint, at text, body text, v bigint, key_id text, prev text, hash text); \
         CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, actor text NOT NULL, kind text NOT NULL, body jsonb NOT NULL); \
         CREATE TABLE blobs (id bigint PRIMARY KEY, name text, body bytea)",
    )?;
    let mut writer = client.copy_in("COPY audit FROM stdin")?;
    let mut head = NativeHead::genesis("main");
    let mut written = 0;
    let mut number = 0_i64;
    while written < megabytes * 500_000 {
        number += 1;
        let body = format!(
            "{{\"actor\":\"user-{}\",\"action\":\"record.updated\",\"target\":\"doc-{}\",\"reason\":\"{}\",\"n\":{number}}}",
            number % 97,
            number * 7919 % 100_003,
            "as agreed with the owner of the record ".repeat(usize::try_from(number % 5)?),
        );
        let record = head.next(1_780_000_000_000_000 + number * 1_000, body, None)?;
        let line = format!(
            "{}\t{}\t{}\t{}\t{}\t\\N\t{}\t{}\n",
            record.chain, record.seq, record.at, record.body, record.v, record.prev, record.hash
        );
        written += line.len() as u64;
        writer.write_all(line.as_bytes())?;
        head = NativeHead::at(record.chain, record.seq, record.hash, false);
    }
    writer.finish()?;
    let (events, blobs) = (megabytes * 800, megabytes * 12);
    client.batch_execute(&format!(
        "ALTER TABLE audit ADD PRIMARY KEY (chain, seq); \
         INSERT INTO events SELECT i, '2026-01-01'::timestamptz + i * interval '1 second', 'actor-' || i % 311, (ARRAY['login','read','write'])[1 + i % 3], \
           jsonb_build_object('session', md5(i::text), 'ip', format('10.0.%s.%s', i % 251, i % 241), 'path', '/api/v1/records/' || i % 9973, 'took_ms', i % 977) \
           FROM generate_series(1, {events}) i; \
         CREATE INDEX ON events (at); CREATE INDEX ON events (actor, kind); \
         INSERT INTO blobs SELECT i, 'file-' || i, (SELECT decode(string_agg(md5(i || '/' || n || '/' || random()), ''), 'hex') FROM generate_series(1, 1250) n) \
           FROM generate_series(1, {blobs}) i"
    ))?;
    client.batch_execute("VACUUM ANALYZE")?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}

struct Bench {
    url: String,
    folder: PathBuf,
    cluster: ScratchCluster,
}

impl Bench {
    /// Runs a peer: a shell line with `$URL` and `$OUT`.
    fn peer(&self, script: &str) -> Result<Duration> {
        let place = tempfile::tempdir_in(&self.folder)?;
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", script]);
        command.env("URL", &self.url).env("OUT", place.path());
        if let Some(tool) = tools()
            .newest("pg_dump", self.cluster.major())
            .ok()
            .and_then(|tool| tool.path.parent().map(Path::to_owned))
        {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", tool.display()));
        }
        Ok(measure(&mut command)?.wall)
    }

    /// Runs ours; returns the time, the peak of memory and the size of the repository.
    fn ours(&self, jobs: usize, chained: bool) -> Result<(Duration, u64, u64)> {
        let place = tempfile::tempdir_in(&self.folder)?;
        let repository = place.path().join("repository");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(&self.url).arg(&repository).arg(jobs.to_string());
        let run = measure(command.arg(if chained { "chain" } else { "plain" }))?;
        let repository = Repository::open(&repository, &RepositoryOptions::default())?;
        let size =
            repository.objects(LATEST, &ReadOptions::default(), &Context::new())?.manifest().stored_bytes();
        Ok((run.wall, run.peak_bytes, size))
    }

    fn run(&self, megabytes: u64) -> Result<()> {
        const CUSTOM: &str = r#"pg_dump -Fc -d "$URL" -f "$OUT/db.dump"; sync "$OUT/db.dump"; stat -c %s "$OUT/db.dump" > "${SIZE:-/dev/null}""#;
        const PIPE: &str =
            r#"pg_dump -Fc -Z0 -d "$URL" | zstd -1 -T0 -q > "$OUT/db.dump.zst"; sync "$OUT/db.dump.zst""#;
        const FOLDER: &str = r#"pg_dump -Fd -j2 -d "$URL" -f "$OUT/db"; sync "$OUT"/db/*"#;
        const RESTIC: &str = r#"export RESTIC_PASSWORD=x; restic -q init -r "$OUT/r"; pg_dump -Fc -Z0 -d "$URL" | restic -q -r "$OUT/r" backup --stdin"#;
        let restic =
            Command::new("restic").arg("version").output().is_ok_and(|output| output.status.success());
        let mut times: [Vec<Duration>; 8] = Default::default();
        let (mut peak, mut stored) = (0, 0);
        for _ in 0..runs() {
            let [custom, pipe, directory, one, two, one_chained, two_chained, rest] = &mut times;
            custom.push(self.peer(CUSTOM)?);
            pipe.push(self.peer(PIPE)?);
            directory.push(self.peer(FOLDER)?);
            for (jobs, chained, kept) in
                [(1, false, one), (2, false, two), (1, true, one_chained), (2, true, two_chained)]
            {
                let (wall, memory, size) = self.ours(jobs, chained)?;
                kept.push(wall);
                peak = peak.max(memory);
                stored = size;
            }
            if restic {
                rest.push(self.peer(RESTIC)?);
            }
        }
        let [custom, pipe, directory, one, two, one_chained, two_chained, rest] = times.map(median);
        let mut table = Table::default();
        table.at_most("one connection, no chain, against pg_dump -Fc", one, custom, 1.0 / 4.5);
        table.at_most("one connection, no chain, against pg_dump -Fc -Z0 | zstd -1 -T0", one, pipe, 1.15);
        table.at_most("two connections, no chain, against the same pipe", two, pipe, 0.85);
        table.at_most("two connections, no chain, against pg_dump -Fd -j2", two, directory, 1.0);
        table.at_most(
            "two connections, chain verified from what is stored, against pg_dump -Fc",
            two_chained,
            custom,
            0.25,
        );
        table.at_most("the same, against two connections without the chain", two_chained, two, 1.5);
        table.at_most(
            "one connection, chain read a second time, against one without the chain",
            one_chained,
            one,
            2.0,
        );
        if restic {
            table.at_most("one connection against pg_dump -Fc -Z0 | restic --stdin", one, rest, 1.0);
        } else {
            println!("left out: restic (not installed)");
        }
        println!("left out: pgcopydb (it copies between servers and writes no backup)");
        table.row(
            "peak memory of ours",
            &format!("{} MiB", peak >> 20),
            "",
            "",
            &format!("< 128 MiB {}", verdict(peak < MEMORY)),
        );
        table.row("stored", &format!("{} MiB", stored >> 20), "", "", "");
        table.row("pg_dump -Fc took", "", &seconds(custom), "", "");
        println!("{}", table.markdown(&format!("PostgreSQL, a database of about {megabytes} MB")));
        Ok(())
    }
}
