//! TLS as `sslmode` asks for it, against a server with a certificate of its own authority.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use backup_core::context::Context;
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::error::ErrorKind;
use backup_postgres::{Address, Connection, Environment, SessionOptions};

use crate::support::{cluster, left_out, tools};

fn openssl(folder: &Path, arguments: &str) -> bool {
    let run = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    run.is_ok_and(|output| output.status.success())
}

/// Finds a port that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn tls_is_used_and_the_server_is_verified_as_sslmode_asks() {
    let folder = tempfile::Builder::new().prefix("tls").tempdir_in("/tmp").unwrap();
    let path = folder.path();
    let made = openssl(
        path,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority -addext basicConstraints=critical,CA:TRUE",
    ) && openssl(
        path,
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
    ) && {
        std::fs::write(path.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            path,
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem",
        )
    } && openssl(
        path,
        "req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other -addext basicConstraints=critical,CA:TRUE",
    );
    if !made {
        left_out("tls_is_used_and_the_server_is_verified_as_sslmode_asks", "openssl is not installed");
        return;
    }
    // The key must be the server's own.
    let owner = std::fs::metadata(cluster().folder()).unwrap();
    let mode = |name: &str, bits| {
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(bits)).unwrap();
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    mode("server.key", 0o600);
    mode("server.pem", 0o644);
    chown(path.join("server.key"), Some(owner.uid()), Some(owner.gid())).unwrap();
    let port = free_port();
    let at = |name: &str| path.join(name).display().to_string();
    let settings = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", at("server.pem")),
        ("ssl_key_file", at("server.key")),
    ];
    let options = ClusterOptions {
        tools: tools(),
        port,
        settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        ..ClusterOptions::default()
    };
    let server = ScratchCluster::start(&options, &Context::new()).unwrap();
    let open = |host: &str, words: &str| {
        let text = format!(
            "host={host} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5 {words}"
        );
        let address = Address::parse(&text, &Environment::default())?;
        Connection::open(&address, &SessionOptions::default(), &Context::new())
    };
    let (ca, other) = (at("ca.pem"), at("other.pem"));
    for (words, encrypted) in [
        ("sslmode=disable".to_owned(), false),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-ca sslrootcert={ca}"), true),
        (format!("sslmode=verify-full sslrootcert={ca}"), true),
    ] {
        let mut connection = open("localhost", &words).unwrap();
        assert_eq!(connection.is_encrypted(), encrypted, "{words}");
        let row = connection
            .client()
            .query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[])
            .unwrap();
        assert_eq!(row.get::<_, bool>(0), encrypted, "{words}: as the server sees it");
    }
    // A name that the certificate is not made out to is well for verify-ca only; another authority for neither.
    assert!(open("elsewhere.test", &format!("sslmode=verify-ca sslrootcert={ca}")).is_ok());
    for (host, words) in [
        ("elsewhere.test", format!("sslmode=verify-full sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full sslrootcert={other}")),
        ("localhost", format!("sslmode=verify-ca sslrootcert={other}")),
        ("localhost", format!("sslmode=require sslrootcert={other}")),
    ] {
        let error = open(host, &words).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{words}: {error}");
        assert!(error.hint().unwrap().contains("certificate"), "{words}: {error} {:?}", error.hint());
    }
    assert_eq!(open("localhost", "sslmode=verify-full").unwrap_err().kind(), ErrorKind::InvalidInput);
    drop(server);
}
