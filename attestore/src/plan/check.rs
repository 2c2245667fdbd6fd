//! Checks of a plan beyond its types: names that come twice, references to what is not there, rules that keep nothing.

use std::collections::BTreeMap;

use backup_core::error::{Error, Result};
use toml::Spanned;

use super::Plan;
use super::read::fault;
use super::values::Name;
use crate::plan::schema::SealedKind;
use crate::sealed::Layout;

/// Checks a plan.
///
/// # Errors
/// `InvalidInput` with the place of the first thing that is wrong.
pub(super) fn check(plan: &Plan, text: &str) -> Result<()> {
    let file = &plan.file;
    let at = |spanned: &Spanned<Name>, what: String| fault(&plan.path, text, spanned.span().start, what);
    let anywhere = |what: String| {
        Error::new(backup_core::error::ErrorKind::InvalidInput, format!("{}: {what}", plan.path.display()))
    };
    if file.sources.is_empty() && file.files.is_empty() {
        return Err(
            anywhere("it names nothing to back up".into()).with_hint("add a [[sources]] or [[files]] table")
        );
    }
    let names = |list: &mut dyn Iterator<Item = (&'static str, &Spanned<Name>)>| -> Result<()> {
        let mut seen: BTreeMap<&str, &'static str> = BTreeMap::new();
        for (kind, name) in list {
            if let Some(before) = seen.insert(name.get_ref().as_str(), kind) {
                let what = if before == kind {
                    format!("two {kind}s are called {:?}", name.get_ref().as_str())
                } else {
                    format!("a {before} and a {kind} are called {:?}", name.get_ref().as_str())
                };
                return Err(at(name, what).with_hint("give one of them another name"));
            }
        }
        Ok(())
    };
    names(
        &mut file
            .sources
            .iter()
            .map(|one| ("source", &one.name))
            .chain(file.files.iter().map(|one| ("files asset", &one.name)))
            .chain(file.elsewhere.iter().map(|one| ("asset elsewhere", &one.name)))
            .chain(file.recreated.iter().map(|one| ("recreated asset", &one.name))),
    )?;
    names(&mut file.secrets.iter().map(|one| ("secret", &one.name)))?;
    for hooks in [&file.hooks.before, &file.hooks.after, &file.drill.smoke] {
        names(&mut hooks.iter().map(|one| ("hook", &one.name)))?;
        for hook in hooks {
            if hook.run.first().is_none_or(String::is_empty) {
                return Err(at(&hook.name, format!("the hook {} runs nothing", hook.name.get_ref()))
                    .with_hint("run = [\"PROGRAM\", \"ARGUMENT\", …]"));
            }
        }
    }
    names(&mut file.drill.checks.iter().map(|one| ("check", &one.name)))?;
    for other in &file.elsewhere {
        if other.check.as_ref().is_some_and(|check| check.run.first().is_none_or(String::is_empty)) {
            return Err(at(&other.name, format!("the check of {} runs nothing", other.name.get_ref())));
        }
    }
    let source = |name: &str| file.sources.iter().any(|source| source.name.get_ref().as_str() == name);
    for check in &file.drill.checks {
        if let Some(name) = &check.source
            && !source(name.get_ref().as_str())
        {
            return Err(at(name, format!("there is no source {:?}", name.get_ref().as_str())));
        }
    }
    for source in &file.sources {
        let mut chains = Vec::new();
        for chain in &source.chains {
            if chain.format.is_empty() {
                return Err(at(&source.name, format!("a chain of {} has no format", source.name.get_ref())));
            }
            let key = (chain.format.as_str(), chain.table.as_deref());
            if chains.contains(&key) {
                let what =
                    format!("the source {} has the chain {} twice", source.name.get_ref(), chain.format);
                return Err(at(&source.name, what));
            }
            chains.push(key);
        }
        for sealed in &source.sealed {
            let name = sealed.secret.get_ref().as_str();
            if plan.secret(name).is_none() {
                return Err(at(&sealed.secret, format!("there is no secret {name:?}"))
                    .with_hint("add a [[secrets]] table of that name"));
            }
            match (sealed.kind, &sealed.layout) {
                (SealedKind::Aes256Gcm, None) => {
                    let what = format!("{}.{} has no layout", sealed.table, sealed.column);
                    return Err(
                        at(&sealed.secret, what).with_hint("for example layout = \"<nonce>.<ct>.<tag>\"")
                    );
                }
                (SealedKind::Aes256Gcm, Some(layout)) => {
                    Layout::parse(layout, sealed.encoding).map_err(|what| at(&sealed.secret, what))?;
                }
                (_, Some(_)) => {
                    let what =
                        format!("{}.{} needs no layout: its kind fixes it", sealed.table, sealed.column);
                    return Err(at(&sealed.secret, what));
                }
                (_, None) => {}
            }
        }
    }
    if let Some(retention) = &file.retention {
        retention.policy().check().map_err(|error| anywhere(format!("[retention]: {error}")))?;
    }
    if file.repository.parallel_sources == Some(0) {
        return Err(anywhere("[repository]: parallel_sources is 0, expected at least 1".into()));
    }
    Ok(())
}
