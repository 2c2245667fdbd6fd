//! One entry of the policy log: the second chain, over nine fields, in the same scheme as receipts.

use serde::Serialize;

use crate::error::Result;
use crate::receipt::hash_of;

/// What changed in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChange {
    /// Whose chain it belongs to.
    pub tenant_id: String,
    /// Which policy.
    pub policy_id: String,
    /// The policy's name.
    pub policy_key: String,
    /// `created`, `updated`, `disabled`.
    pub action: String,
    /// Who did it.
    pub changed_by: Option<String>,
    /// `sha256:` and the hex digest of the policy's text.
    pub body_hash: String,
    /// One sentence.
    pub diff_summary: Option<String>,
}

#[derive(Serialize)]
struct Hashed<'a> {
    action: &'a str,
    body_hash: &'a str,
    changed_by: Option<&'a str>,
    diff_summary: Option<&'a str>,
    id: &'a str,
    policy_id: &'a str,
    policy_key: &'a str,
    prev_hash: &'a str,
    tenant_id: &'a str,
}

impl PolicyChange {
    /// Returns the entry's hash as the successor of `prev_hash`.
    ///
    /// # Errors
    /// When the fields cannot be written as JSON (never, for text).
    pub fn entry_hash(&self, id: &str, prev_hash: &str) -> Result<String> {
        hash_of(&Hashed {
            action: &self.action,
            body_hash: &self.body_hash,
            changed_by: self.changed_by.as_deref(),
            diff_summary: self.diff_summary.as_deref(),
            id,
            policy_id: &self.policy_id,
            policy_key: &self.policy_key,
            prev_hash,
            tenant_id: &self.tenant_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that the real system wrote.
    #[test]
    fn an_entry_hashes_as_the_real_system_hashed_it() {
        let change = PolicyChange {
            tenant_id: "tenant_alpha".into(),
            policy_id: "9fbd084a-7e45-42a0-832d-60005d61f52f".into(),
            policy_key: "p1".into(),
            action: "created".into(),
            changed_by: None,
            body_hash: "sha256:bacfa3fab8b34a87fbe68d2b949b8fb62bc093942a84fd9a08543f15a0b63ee2".into(),
            diff_summary: Some("Policy 'n é 1' created (version 1)".into()),
        };
        assert_eq!(
            change.entry_hash("bcfebb31-67d7-4546-9ae5-0e309db1faa5", "").unwrap(),
            "eb2fdd948cd9958e441870aed4d1dba415d24f25871767fa05e72a93f9e96abf"
        );
    }
}
