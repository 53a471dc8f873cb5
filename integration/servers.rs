//! Real servers from Debian's packages in a container such as docker makes: started, spoken to
//! over loopback and over a Unix socket in a bind mount, and stopped by their own signal with
//! their own exit code.

mod debian;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::engines::{fixture, substitute};
use crate::support::need::Need;
use crate::support::{Bundle, Container, Output, Process, eventually, patience, reaper};
use debian::Debian;

/// Leaves the test, with the reason, where there is no Debian root filesystem and none can be made.
macro_rules! debian {
    () => {{
        require!(root);
        match debian::rootfs() {
            Ok(debian) => debian,
            Err(reason) => {
                fn here() {}
                let fact = format!("a Debian root filesystem ({reason})");
                Need { fact, met: false }.skip(std::any::type_name_of_val(&here));
                return;
            }
        }
    }};
}

/// A server in its bundle. Everything that it may write to is mounted; the root is read-only.
struct Server {
    bundle: Bundle,
    debian: &'static Debian,
    user: (u32, u32),
}

impl Server {
    /// docker's configuration, as captured, with no new privileges and this user and command.
    fn new(debian: &'static Debian, user: &str, args: &[&str]) -> Server {
        let bundle = Bundle::new();
        let user = debian.user(user);
        let captured = fixture::named("docker-default").config();
        let mut config = substitute::adapt(captured, &bundle, None).config;
        config.args(args).set("/process/noNewPrivileges", true);
        config.set("/process/user", json!({ "uid": user.0, "gid": user.1 }));
        config.set("/root", json!({ "path": debian.dir, "readonly": true }));
        for target in ["/tmp", "/run", "/var/log", "/var/lib/nginx"] {
            config.push("/mounts", tmpfs(target));
        }
        assert!(config["linux"]["seccomp"].is_object(), "docker's profile");
        bundle.edit(|place| {
            *place = config;
            place
        });
        Server { bundle, debian, user }
    }

    /// A directory of the host at a place that is empty in the root filesystem, where nothing has
    /// to be made to mount on. It belongs to the server's user.
    fn share(&self, target: &str) -> PathBuf {
        let dir = self.bundle.share(target);
        chown(&dir, Some(self.user.0), Some(self.user.1)).unwrap();
        dir
    }

    /// Sends the signal through the runtime and waits, as the parent, for the end of init.
    #[track_caller]
    fn stop(&self, container: &Container, signal: &str) {
        let init = container.init();
        assert_eq!(
            (init.status("Seccomp").as_str(), init.status("NoNewPrivs").as_str()),
            ("2", "1")
        );
        container.kill(signal).ok();
        let status: ExitStatus =
            reaper::wait(init.0, patience()).unwrap_or_else(|| panic!("no end after {signal}"));
        assert_eq!(status.code(), Some(0), "after {signal}: {status}");
        container.becomes("stopped");
        container.delete().ok();
        self.bundle.assert_clean();
        self.debian.assert_unchanged();
    }
}

fn tmpfs(target: &str) -> Value {
    let options = ["nosuid", "nodev", "noexec", "mode=1777", "size=64m"];
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// Runs a command in the container until it succeeds, as a health check does.
#[track_caller]
fn answers(container: &Container, created: &Output, args: &[&str]) -> String {
    eventually(&format!("{args:?} succeeds: {}", created.stderr_now()), || {
        let output = container.exec(args);
        (output.code() == 0).then_some(output.stdout)
    })
}

/// What a server on a Unix socket answers before it closes the connection.
#[track_caller]
fn ask(socket: &Path, request: &str) -> String {
    let mut stream = eventually("the socket accepts", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A user without any capability, an event loop, a fork for saving, a signal handler.
#[test]
fn redis_is_spoken_to_and_stopped() {
    let debian = debian!();
    let args = "redis-server --bind 127.0.0.1 --unixsocket /mnt/redis.sock --dir /mnt";
    let server = Server::new(debian, "redis", &args.split(' ').collect::<Vec<_>>());
    let data = server.share("/mnt");
    let redis = server.bundle.container("redis");
    let created = redis.up();
    let by_socket = ["redis-cli", "-s", "/mnt/redis.sock", "SET", "key", "by socket"];
    assert_eq!(answers(&redis, &created, &by_socket), "OK\n");
    assert_eq!(redis.init().status("CapPrm"), "0000000000000000");
    // The network namespace is new, so nobody but the runtime has brought its loopback up.
    let by_network = ["redis-cli", "-h", "127.0.0.1", "GET", "key"];
    assert_eq!(redis.exec(&by_network).ok().stdout, "by socket\n");
    redis.exec(&["redis-cli", "-h", "127.0.0.1", "SET", "key", "by network"]).ok();
    // QUIT lets the server close the connection.
    let answer = ask(&data.join("redis.sock"), "GET key\r\nQUIT\r\n");
    assert_eq!(answer, "$10\r\nby network\r\n+OK\r\n");
    redis.exec(&["redis-cli", "-h", "127.0.0.1", "BGSAVE"]).ok();
    eventually("it has saved", || data.join("dump.rdb").exists().then_some(()));
    server.stop(&redis, "TERM");
    assert!(created.stdout_now().contains("bye bye"), "{}", created.stdout_now());
}

/// The master keeps root and binds port 80, its workers become another user. `stop` of docker's
/// image sends QUIT.
#[test]
fn nginx_serves_and_is_stopped_gracefully() {
    serves_pages_until(debian!(), "QUIT");
}

#[test]
fn nginx_serves_and_is_stopped_at_once() {
    serves_pages_until(debian!(), "TERM");
}

fn serves_pages_until(debian: &'static Debian, signal: &str) {
    const CONFIG: &str =
        "daemon off; user www-data; worker_processes 2; pid /run/nginx.pid; error_log stderr;
        events { worker_connections 64; }
        http {
            access_log /dev/stdout;
            server {
                listen 127.0.0.1:80; listen unix:/srv/nginx.sock;
                location / { root /srv; }
            }
        }";
    let server = Server::new(debian, "root", &["nginx", "-c", "/srv/nginx.conf"]);
    let site = server.share("/srv");
    fs::write(site.join("nginx.conf"), CONFIG).unwrap();
    fs::write(site.join("page"), "a page\n").unwrap();
    // Debian's minimal system has no HTTP client; busybox is one, and needs no libraries.
    fs::copy(server.bundle.rootfs().join("bin/busybox"), site.join("busybox")).unwrap();
    let web = server.bundle.container("web");
    let created = web.up();
    let get = ["/srv/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/page"];
    assert_eq!(answers(&web, &created, &get), "a page\n");
    let answer = ask(&site.join("nginx.sock"), "GET /page HTTP/1.0\r\nHost: web\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\na page\n"), "{answer}");
    // One worker answers before the other has started.
    let uid = debian.user("www-data").0.to_string();
    eventually("two workers are www-data", || {
        let workers = web.init().children();
        let theirs = |worker: &Process| worker.status("Uid") == [uid.as_str(); 4].join("\t");
        (workers.len() == 2 && workers.iter().all(theirs)).then_some(())
    });
    server.stop(&web, signal);
    // /dev/stdout led to what create was given as its stdout.
    assert_eq!(created.stdout_now().matches("GET /page").count(), 2, "{}", created.stdout_now());
}

/// Shared memory, semaphores, many processes, a data directory whose owner it insists on; the
/// second container finds what the first has written.
#[test]
fn postgresql_stores_and_is_stopped() {
    let debian = debian!();
    let programs = debian.postgresql();
    // initdb runs once, as in docker's image; the server takes the place of the shell.
    let script = format!(
        "cd {programs} && {{ test -e /mnt/main/PG_VERSION || \
         ./initdb --no-sync --locale=C.UTF-8 --auth=trust -D /mnt/main >&2; }} && \
         exec ./postgres -D /mnt/main -k /media -c listen_addresses=127.0.0.1"
    );
    let server = Server::new(debian, "postgres", &["sh", "-c", &script]);
    let (data, sockets) = (server.share("/mnt"), server.share("/media"));
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let psql = |host: &str, command: &str| -> Vec<String> {
        let program = format!("{programs}/psql");
        let words = [&program, "-h", host, "-XAtqc", command];
        words.map(str::to_string).to_vec()
    };
    let ask_sql = |container: &Container, created: &Output, host: &str, command: &str| {
        let words = psql(host, command);
        answers(container, created, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let first = server.bundle.container("first");
    let created = first.up();
    ask_sql(&first, &created, "/media", "select 1");
    ask_sql(&first, &created, "/media", "create table pots (id int primary key, name text)");
    ask_sql(&first, &created, "127.0.0.1", "insert into pots values (1, 'onggi'), (2, 'crock')");
    let select = "select string_agg(name, ',' order by id) from pots";
    assert_eq!(ask_sql(&first, &created, "/media", select), "onggi,crock\n");
    // SSLRequest of the protocol, from outside: N says that the server has no TLS.
    let mut stream = UnixStream::connect(sockets.join(".s.PGSQL.5432")).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    drop(stream);
    server.stop(&first, "TERM");

    let second = server.bundle.container("second");
    let created = second.up();
    assert_eq!(ask_sql(&second, &created, "127.0.0.1", select), "onggi,crock\n");
    server.stop(&second, "INT");
}
