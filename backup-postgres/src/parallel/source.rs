//! A backup of a [`PostgresSource`] by several connections: facts, chains and their copies as for one, the data by [`dump`].
//!
//! What the restore and the verification look for is where it always is: `database/<name>.inventory.json`,
//! `database/<name>.globals.sql`, `keys/`, `chain/`; in place of `database/<name>.dump` is the folder of [`super::toc`].

use backup_core::context::Context;
use backup_core::traits::{ChainRequest, Sinks, Snapshot as _, SnapshotOutcome};

use super::chain::Streamed;
use super::dump::{DumpRequest, dump};
use crate::error::Result;
use crate::facts::{self, Asked, Found, detail};
use crate::source::PostgresSource;

/// The fact that says how many chains were read a second time.
const READ_AGAIN: &str = "chains_read_again";
/// The fact that says how many connections read.
const JOBS: &str = "jobs";

impl PostgresSource {
    /// Takes a snapshot with several connections.
    pub(crate) fn take_parallel(
        &self,
        chains: &[ChainRequest],
        sinks: &dyn Sinks,
        ctx: &Context,
    ) -> Result<SnapshotOutcome> {
        let (mut session, catalog) = self.open(ctx)?;
        let tool = self.options.tools.find("pg_dump", session.version())?;
        catalog.refuse_what_is_hidden()?;
        let opened = self.open_chains(&mut session, &catalog, chains, ctx)?;
        let streamed: Vec<Streamed<'_>> = opened
            .iter()
            .zip(chains)
            .map(|(open, request)| Streamed { request, table: &open.table, beside: &open.beside })
            .collect();
        let stem = self.stem();
        let mut request = DumpRequest {
            chains: &streamed,
            ..DumpRequest::new(&mut session, &tool, &stem, self.options.parallel)
        };
        let dumped = dump(&mut request, sinks, ctx)?;
        let asked = Asked {
            name: self.describe().name,
            location: self.address.location(),
            count_rows: false,
            migrations_query: self.options.migrations_query.clone(),
        };
        let (instant, standby) = (session.instant(), session.is_standby());
        let Found { mut facts, inventory } =
            facts::read(session.connection(), &catalog, asked, instant, standby, ctx)?;
        for relation in &catalog.relations {
            if let Some(rows) = dumped.rows.get(&relation.oid) {
                facts.tables.insert(relation.name.clone(), *rows);
            }
        }
        let mut again = dumped.second_reads;
        let mut reports = Vec::with_capacity(chains.len());
        for ((open, chain), report) in opened.iter().zip(chains).zip(dumped.chains) {
            reports.push(match report {
                Some(report) => report,
                None => {
                    again += 1;
                    open.verify(chain, ctx)?
                }
            });
        }
        self.store_beside(&opened, chains, sinks, ctx)?;
        facts.details.insert(JOBS.into(), self.options.parallel.jobs.to_string());
        facts.details.insert(READ_AGAIN.into(), again.to_string());
        facts.details.insert(detail::PG_DUMP.into(), tool.version.to_string());
        self.finish(session, facts, &inventory, reports, sinks, ctx)
    }
}
