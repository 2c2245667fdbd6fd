//! Every kind of error: the test that provokes it through the command line, or why none can.

use crate::support::ErrorKind;

#[test]
fn every_kind_of_error_is_provoked_or_its_absence_explained() {
    for kind in ErrorKind::ALL {
        // Each test asserts code, kind and exit status against the table (`World::fails`).
        let by = match kind {
            ErrorKind::NotFound => "list::a_name_that_is_not_there_or_no_name_is_told",
            ErrorKind::AlreadyExists => "keygen::a_key_is_never_overwritten",
            ErrorKind::InvalidName => {
                "backup::a_name_that_could_hide_or_mislead_is_refused_and_a_taken_one_too"
            }
            ErrorKind::InvalidInput => "usage::wrong_use_is_told_the_same_in_text_and_json",
            ErrorKind::Malformed => "backup::what_is_no_database_is_refused_by_what_it_is",
            ErrorKind::Locked => {
                "signals::a_second_backup_is_told_who_holds_the_lock_and_ctrl_c_ends_the_first"
            }
            ErrorKind::InUse => "restore::a_database_that_another_process_has_open_is_not_replaced",
            ErrorKind::Newer => "backup::a_repository_that_is_none_newer_or_out_of_reach_is_told_apart",
            ErrorKind::Unsupported => {
                "keygen::what_looks_like_a_url_is_no_folder_and_its_password_is_not_repeated"
            }
            ErrorKind::Corrupt => "verify::damage_is_found_where_it_is_and_ends_with_5",
            ErrorKind::Tampered => {
                "backup::a_chain_with_findings_is_backed_up_and_said_or_refused_where_that_is_asked"
            }
            ErrorKind::KeyRejected | ErrorKind::Unsigned => {
                "verify::a_signature_that_is_asked_for_must_be_there_and_of_that_key"
            }
            ErrorKind::Mismatch => "verify::what_is_no_checkpoint_of_this_repository_is_told",
            ErrorKind::Permission => "kinds::a_key_that_others_may_read_is_refused",
            ErrorKind::Cancelled => "signals::standard_input_that_never_ends_can_be_interrupted",
            ErrorKind::NoSpace => "usage::an_output_that_cannot_be_written_is_a_failure (/dev/full)",
            ErrorKind::Unavailable => {
                "unreachable: no servers here, and the system always gives random bytes"
            }
            ErrorKind::Io => "unreachable on purpose: a failing disk",
            ErrorKind::Internal => "unreachable: a defect of this program",
            other => panic!("{other:?} is new: provoke it, or say why it cannot be"),
        };
        assert!(by.contains("::") || by.starts_with("unreachable"), "{kind:?}");
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = crate::support::World::ready();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("backup.key"), open).unwrap();
    let said =
        world.fails(ErrorKind::Permission, ["backup", "app.db", "--to", "repo", "--sign-with", "backup.key"]);
    assert!(said.contains("chmod 600 backup.key"), "{said}");
}
