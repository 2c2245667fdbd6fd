//! The users of this machine (`/etc/passwd`), for a role's default name and for servers that must not run as root.

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) gid: String,
}

/// Lists the users; none where there is no such file.
pub(crate) fn entries() -> impl Iterator<Item = User> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let read = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(User { name: name.to_owned(), uid: uid.to_owned(), gid: gid.to_owned() })
    };
    text.lines().filter_map(read).collect::<Vec<_>>().into_iter()
}
