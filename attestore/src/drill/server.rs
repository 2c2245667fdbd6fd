//! Drills of PostgreSQL databases: `backup_postgres::drill` on the server that `--scratch URL` names, or on a throwaway one.

use backup_core::context::Context;
use backup_core::error::Result;
#[cfg(not(feature = "postgres"))]
use backup_core::error::{Error, ErrorKind};
use backup_core::repository::StoredBackup;
use backup_core::traits::SourceFacts;

use super::Work;

/// Reports whether a source is a PostgreSQL database.
pub(super) fn is_server(source: &SourceFacts) -> bool {
    source.kind == "postgres"
}

impl Work<'_> {
    /// Restores one database of a server and proves it.
    #[cfg(not(feature = "postgres"))]
    pub(super) fn restore_server(
        &mut self,
        source: &SourceFacts,
        _: &StoredBackup,
        _: &Context,
    ) -> Result<bool> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{}: this program was built without the feature postgres", source.name),
        ))
    }

    /// Restores one database of a server and proves it.
    #[cfg(feature = "postgres")]
    pub(super) fn restore_server(
        &mut self,
        source: &SourceFacts,
        backup: &StoredBackup,
        ctx: &Context,
    ) -> Result<bool> {
        use audit_chain::formats;
        use audit_chain::profile::Profile;
        use backup_core::traits::{BackupObjects as _, ChainRequest, Check};
        use backup_postgres::drill::{self, SqlQuestion};
        use std::sync::Arc;

        let mut chains = Vec::new();
        for entry in backup.manifest().chains.iter().filter(|entry| entry.source == source.name) {
            let format: Arc<dyn audit_chain::format::ChainFormat> = match &entry.profile {
                Some(text) => {
                    let name = format!("the profile {} in the manifest", entry.format);
                    Arc::new(Profile::parse(&name, text)?)
                }
                None => match formats::by_name(&entry.format) {
                    Ok(format) => format,
                    Err(_) => {
                        self.checks.push(Check {
                            name: format!("chain {}", entry.table),
                            ok: true,
                            detail: format!("not verified again: format {} is not at hand", entry.format),
                        });
                        continue;
                    }
                },
            };
            chains.push(ChainRequest {
                format,
                table: Some(entry.table.clone()),
                keys: self.contents.keys.clone(),
                checkpoint: Some(entry.points.clone()),
                copy: false,
            });
        }
        let question = |sql: &str, expected: Option<String>| SqlQuestion { sql: sql.to_owned(), expected };
        let mut questions: Vec<_> = self.options.checks.iter().map(|sql| question(sql, None)).collect();
        for check in self.options.plan.iter().flat_map(|plan| &plan.file.drill.checks) {
            if check.source.as_ref().is_none_or(|of| of.get_ref().as_str() == source.name) {
                questions.push(question(&check.sql, check.expected.clone()));
            }
        }
        let caracal = chains.iter().any(|chain| chain.format.name().starts_with("caracal"));
        let options = drill::DrillOptions {
            server: self.options.server.as_ref().map(crate::postgres::address).transpose()?,
            tools: crate::postgres::tools(&crate::postgres::PostgresOptions::default()),
            scratch: None,
            jobs: 0,
            questions,
            chains,
            settings: if caracal { vec![("caracal.zone_id".into(), "*".into())] } else { Vec::new() },
        };
        let done = drill::drill(backup, &source.name, &options, ctx)?;
        let ok = done.ok();
        for timing in &done.timings {
            tracing::info!(source = source.name, step = timing.step, seconds = timing.seconds, "drilled");
        }
        self.checks.extend(
            done.checks
                .into_iter()
                .map(|check| Check { name: format!("{}: {}", source.name, check.name), ..check }),
        );
        self.chains.extend(done.chains);
        Ok(ok)
    }
}
