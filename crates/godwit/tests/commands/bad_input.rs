//! Bad input and bad surroundings: damaged and foreign images, files that are missing or differ, disks that are full, memory that
//! does not suffice, directories without rights, nonsense on the wire, destinations that are not there. Each is a clear error with
//! its code, subject and remedy, and the process goes on.
use crate::scene::{GODWIT, Receiver, Scratch, godwit, json, pair};
use godwit_handoff::frame::Frame;
use godwit_handoff::{BootId, Capabilities, Message, MigrationId, Packet, Versions};
use godwit_linux::namespace::User;
use godwit_testbed::holder::{Holder, Start};
use godwit_testbed::{Host, Pair};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

pub(crate) fn hold(host: &Host, object: &str, user: Option<User>) -> Holder {
    match Holder::start(host, object, user).expect("a holder") {
        Start::Holds(holder) => holder,
        Start::Skipped(reason) => panic!("{object}: {reason}"),
    }
}

/// An answer that refuses: exit code, one of the codes, a part of what it says, and what people read.
pub(crate) fn assert_refused(what: &str, output: &Output, codes: &[&str], says: &str) {
    let wanted = if codes == ["GW1501"] { 2 } else { 1 };
    assert_eq!(output.status.code(), Some(wanted), "{what}: {output:?}");
    let answer = json(output);
    let refusals = answer["refusals"].as_array().filter(|refusals| !refusals.is_empty());
    let refusals = refusals.unwrap_or_else(|| panic!("{what}: no refusals: {output:?}"));
    let fits = |refusal: &&Value| {
        let code = refusal["code"].as_str().unwrap_or_default();
        let subject = refusal["subject"].as_str().unwrap_or_default();
        let text = format!("{subject}: {}", refusal["cause"].as_str().unwrap_or_default());
        codes.contains(&code) && text.contains(says) && !subject.is_empty()
    };
    assert!(refusals.iter().any(|refusal| fits(&refusal)), "{what}: not {codes:?} {says:?}: {answer}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("(godwit explain GW"), "{what}: no remedy for people: {said}");
}

/// CRC-32 (IEEE), bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ 0xedb8_8320 })
    })
}

/// A checkpoint of a holder, that has ended.
fn checkpoint_of(pair: &Pair, scratch: &Scratch, object: &str) -> (Holder, String) {
    let holder = hold(&pair.source, object, None);
    let place = scratch.path(object).display().to_string();
    let taken = godwit(&pair.source, &["checkpoint", &holder.pid.to_string(), &place]);
    assert!(taken.status.success(), "{taken:?}");
    (holder, place)
}

fn restore(host: &Host, place: &str) -> Output {
    godwit(host, &["restore", "--detach", "--json", place])
}

fn assert_restores(pair: &Pair, holder: &Holder, place: &str) {
    let restored = restore(&pair.source, place);
    assert!(restored.status.success(), "undamaged, it is restored: {restored:?}");
    assert!(holder.goes_on(), "and goes on");
}

/// Headers that are right in themselves, of another version or another machine.
fn of_another_kind(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let cases = [(8, 2_u16, "layout version 2"), (8, 0, "layout version 0"), (10, 183, "architecture 183")];
    let patched = cases.map(|(at, value, says)| {
        let mut bytes = whole.to_vec();
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        let sum = checksum(&bytes[..60]);
        bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        (says, bytes)
    });
    patched.into()
}

#[test]
fn damaged_images_are_refused_whatever_is_damaged() {
    let scratch = Scratch::new("damaged-images");
    let Some(pair) = pair(&scratch) else { return };
    let (holder, place) = checkpoint_of(&pair, &scratch, "none");
    let (image, pages) = (Path::new(&place).join("godwit.image"), Path::new(&place).join("godwit.pages"));
    let whole = (fs::read(&image).expect("an image"), fs::read(&pages).expect("pages"));
    let damaged = ["GW1004", "GW1402"];
    let try_both = |what: &str, every_command: bool, codes: &[&str], says: &str| {
        assert_refused(
            &format!("verify {what}"),
            &godwit(&pair.source, &["image", "verify", "--json", &place]),
            codes,
            says,
        );
        if every_command {
            assert_refused(&format!("restore {what}"), &restore(&pair.source, &place), codes, says);
        }
    };
    // Every byte of the header, and a sample of all others, with one bit turned; what belongs to the checkpoint is named.
    let samples = (0..64).chain((64..whole.0.len()).step_by(whole.0.len() / 150 + 1));
    for (round, at) in samples.enumerate() {
        let mut bytes = whole.0.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&image, &bytes).expect("an image");
        try_both(&format!("image with byte {at} turned"), round % 16 == 0, &damaged, "godwit.image");
    }
    for length in (0..whole.0.len()).step_by(whole.0.len() / 30 + 1).chain([63, 64, 65, whole.0.len() - 1]) {
        fs::write(&image, &whole.0[..length]).expect("an image");
        try_both(&format!("image cut at {length}"), length % 3 == 0, &damaged, "godwit.image");
    }
    for (says, bytes) in of_another_kind(&whole.0) {
        fs::write(&image, &bytes).expect("an image");
        try_both(says, true, &["GW1004"], says);
    }
    for (what, bytes) in [
        ("text", b"no image at all, but a text that somebody put here, longer than a header is".to_vec()),
        ("nothing", Vec::new()),
    ] {
        fs::write(&image, bytes).expect("an image");
        try_both(what, true, &["GW1004"], "godwit.image");
    }
    fs::write(&image, &whole.0).expect("an image");
    for at in (0..whole.1.len()).step_by(whole.1.len() / 20 + 1) {
        let mut bytes = whole.1.clone();
        bytes[at] ^= 0x10;
        fs::write(&pages, &bytes).expect("pages");
        try_both(&format!("pages with byte {at} turned"), at % 4 == 0, &["GW1004"], "godwit.pages");
    }
    fs::write(&pages, &whole.1[..whole.1.len() - 1]).expect("pages");
    try_both("pages cut", true, &damaged, "godwit.pages");
    fs::remove_file(&pages).expect("removed");
    try_both("no pages", true, &["GW1402"], "No such file");
    fs::write(&pages, &whole.1).expect("pages");
    fs::rename(&image, Path::new(&place).join("godwit.image.partial")).expect("renamed");
    try_both("half-written", true, &["GW1401"], "never finished");
    fs::rename(Path::new(&place).join("godwit.image.partial"), &image).expect("renamed");
    let nowhere = scratch.path("nowhere").display().to_string();
    assert_refused("no directory", &restore(&pair.source, &nowhere), &["GW1402"], "No such file");
    assert_restores(&pair, &holder, &place);
    // Its numbers are taken now. What the remedy advises works: it runs until we end it.
    assert_refused("twice", &restore(&pair.source, &place), &["GW1202"], "belongs to");
    let script =
        format!("timeout -s KILL 2 unshare --pid --fork --kill-child --mount-proc {GODWIT} --quiet restore {place}");
    let elsewhere = pair.source.command("/bin/sh").args(["-c", &script]).output().expect("sh");
    assert_eq!(elsewhere.status.code(), Some(128 + 9), "{elsewhere:?}");
}

#[test]
fn files_that_are_missing_or_differ_are_named_before_anything_is_made() {
    let scratch = Scratch::new("missing-files");
    let Some(pair) = pair(&scratch) else { return };
    let (holder, place) = checkpoint_of(&pair, &scratch, "files");
    let path = |name: &str| holder.directory().join(format!("report.{name}"));
    for name in ["open", "mapped", "directory"] {
        let aside = path("aside");
        fs::rename(path(name), &aside).expect("moved away");
        assert_refused(name, &restore(&pair.source, &place), &["GW1201"], &format!("report.{name}"));
        // Something of another sort in its place.
        if name == "directory" {
            fs::write(path(name), "x").expect("a file")
        } else {
            fs::create_dir(path(name)).expect("a directory")
        }
        assert_refused(name, &restore(&pair.source, &place), &["GW1201"], "here and");
        if name == "directory" {
            fs::remove_file(path(name)).expect("gone")
        } else {
            fs::remove_dir(path(name)).expect("gone")
        }
        if name == "mapped" {
            fs::write(path(name), "short").expect("a file");
            assert_refused(name, &restore(&pair.source, &place), &["GW1201"], "5 bytes here");
        }
        fs::rename(&aside, path(name))
            .or_else(|_| fs::remove_file(path(name)).and_then(|()| fs::rename(&aside, path(name))))
            .expect("back");
    }
    assert_restores(&pair, &holder, &place);
}

#[test]
fn a_destination_that_lacks_room_rights_or_files_refuses_and_the_process_goes_on() {
    let scratch = Scratch::new("lacking");
    let Some(pair) = pair(&scratch) else { return };
    // Nothing of the source's is to be found there.
    let receiver = Receiver::start(&pair.destination, &[]);
    let hide = |directory: &Path, size: &str| {
        let command =
            pair.destination.command("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=1777"), "tmpfs"]);
        assert!(command.arg(directory).status().expect("mount").success());
    };
    let files = hold(&pair.source, "files", None);
    let before = files.switches();
    hide(files.directory(), "1m");
    let moved = godwit(&pair.source, &["migrate", "--json", &files.pid.to_string(), &receiver.destination()]);
    assert_refused("files", &moved, &["GW1201"], "report.open");
    assert!(files.switches() == before && files.goes_on(), "refused before the freeze");
    // A disk that is too small for what comes: found while it comes, and all is undone.
    let unlinked = hold(&pair.source, "unlinked", None);
    hide(unlinked.directory(), "1m");
    // Its beats are there, as long as at the source.
    let script = format!("printf '%021d' 0 > {}", unlinked.directory().join("report.beats").display());
    assert!(pair.destination.command("/bin/sh").args(["-c", &script]).status().expect("sh").success());
    let moved = godwit(&pair.source, &["migrate", "--json", &unlinked.pid.to_string(), &receiver.destination()]);
    assert_refused("unlinked", &moved, &["GW1203", "GW1201", "GW1003", "GW1402"], "");
    assert!(
        String::from_utf8_lossy(&moved.stdout).contains("o space left") || json(&moved).to_string().contains("GW1203"),
        "{moved:?}"
    );
    assert!(unlinked.goes_on(), "it goes on");
    // Memory: the receiver may have less than the tree needs.
    let memory = hold(&pair.source, "memory", None);
    for limit in ["ulimit -v 50000", "ulimit -d 20000"] {
        let script = format!("{limit}; exec {GODWIT} receive --listen {}:0", pair.destination.address());
        let small = Receiver::of(pair.destination.command("/bin/sh").args(["-c", &script]));
        let moved = godwit(&pair.source, &["migrate", "--json", &memory.pid.to_string(), &small.destination()]);
        if !moved.status.success() {
            assert_refused(limit, &moved, &["GW1203", "GW1204", "GW1003", "GW1302", "GW1301"], "");
        }
        assert!(moved.status.success() || memory.goes_on(), "{limit}: it goes on");
        assert!(!moved.status.success(), "{limit}: a tree of 64 MiB came through");
    }
}

#[test]
fn checkpoints_that_cannot_be_written_leave_the_process_alone() {
    let scratch = Scratch::new("storage");
    let Some(pair) = pair(&scratch) else { return };
    let holder = hold(&pair.source, "none", None);
    let pid = holder.pid.to_string();
    let full = scratch.path("full");
    fs::create_dir(&full).expect("a directory");
    let mount = pair.source.command("mount").args(["-t", "tmpfs", "-o", "size=8k", "tmpfs"]).arg(&full);
    assert!(mount.status().expect("mount").success());
    fs::write(scratch.path("file"), "").expect("a file");
    let taken = scratch.path("taken");
    assert!(
        godwit(&pair.source, &["checkpoint", "--leave-running", &pid, &taken.display().to_string()]).status.success()
    );
    for (name, says) in [
        ("full/here", "o space left"),
        ("file", ""),
        ("file/below", "Not a directory"),
        ("taken", "holds a checkpoint already"),
    ] {
        let place = scratch.path(name).display().to_string();
        assert_refused(name, &godwit(&pair.source, &["checkpoint", "--json", &pid, &place]), &["GW1402"], says);
        assert!(holder.goes_on(), "{name}: it goes on");
    }
    assert!(
        godwit(&pair.source, &["image", "verify", &taken.display().to_string()]).status.success(),
        "the old one is whole"
    );
    // A user without rights over the directory.
    let user = || Some(User { user: 1000, group: 1000, supplementary: Vec::new() });
    let program = scratch.path("godwit");
    fs::copy(GODWIT, &program).expect("a copy");
    let holder = hold(&pair.source, "none", user());
    let place = scratch.path("closed/here").display().to_string();
    fs::create_dir(scratch.path("closed")).expect("a directory");
    let command =
        pair.source.command(&program).args(["checkpoint", "--json", &holder.pid.to_string(), &place]).user(user());
    assert_refused("rights", &command.output().expect("godwit runs"), &["GW1402", "GW1002"], "ermi");
    assert!(holder.goes_on(), "it goes on");
    let command = pair.source.command(&program).args(["restore", "--json", &taken.display().to_string()]).user(user());
    assert_refused("restore", &command.output().expect("godwit runs"), &["GW1002", "GW1203", "GW1402", "GW1202"], "");
}

#[test]
fn nonsense_on_the_wire_is_answered_and_survived() {
    let scratch = Scratch::new("wire");
    let Some(pair) = pair(&scratch) else { return };
    let receiver = Receiver::start(&pair.destination, &[]);
    let (address, port) = receiver.address.rsplit_once(':').expect("an address and a port");
    let hello = Message::Hello {
        versions: Versions { oldest: 98, newest: 99 },
        boot: BootId([3; 16]),
        capabilities: Capabilities::default(),
    };
    let mut of_the_future = Vec::new();
    let packet = Packet { migration: MigrationId([9; 16]), message: hello };
    Frame::Packet(packet).encode(&mut of_the_future).expect("a frame");
    let mut damaged = of_the_future.clone();
    damaged[14] ^= 1;
    let noise: Vec<u8> = (0..5000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    #[rustfmt::skip]
    let cases: [(&str, Vec<u8>); 6] = [
        ("nothing", Vec::new()), ("noise", noise), ("a request of the web", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("half a frame", of_the_future[..9].to_vec()), ("a damaged frame", damaged), ("a version of the future", of_the_future.clone()),
    ];
    let talk = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])))\ns.sendall(bytes.fromhex(sys.argv[3]))\ns.shutdown(1)\ns.settimeout(20)\n\
                d=b''\nwhile True:\n try: g=s.recv(4096)\n except OSError: break\n if not g: break\n d+=g\nprint(d.hex())";
    for (what, bytes) in cases {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let output = pair.source.command("python3").args(["-c", talk, address, port, &hex]).output().expect("python3");
        assert!(output.status.success(), "{what}: {output:?}");
        println!("{what}: answered {} bytes", output.stdout.len() / 2);
    }
    // Whatever came, it still takes a tree.
    let holder = hold(&pair.source, "none", None);
    let check = godwit(&pair.source, &["check", "--json", &holder.pid.to_string(), "--to", &receiver.destination()]);
    assert!(check.status.success(), "{check:?}");
    // And the other way round: destinations that answer nonsense.
    let serve = "import socket,sys\ns=socket.socket()\ns.bind((sys.argv[1],0))\ns.listen()\nprint('listening on %s:%d'%s.getsockname(),flush=True)\n\
                 while True:\n c,_=s.accept()\n c.recv(100)\n c.sendall(bytes.fromhex(sys.argv[2]))\n c.close()";
    let pid = holder.pid.to_string();
    let before = holder.switches();
    let own = pair.destination.address().to_string();
    for (what, bytes, codes) in [
        ("noise", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), ["GW1301", "GW1004", "GW1303"]),
        ("silence", Vec::new(), ["GW1301", "GW1301", "GW1301"]),
        ("its own hello", of_the_future, ["GW1301", "GW1004", "GW1303"]),
    ] {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let liar = Receiver::of(pair.destination.command("python3").args(["-c", serve, &own, &hex]));
        let moved = godwit(&pair.source, &["migrate", "--json", &pid, &liar.destination()]);
        assert_refused(what, &moved, &codes, "");
    }
    for (target, codes, says) in [
        (format!("tcp://{own}:1"), "GW1301", "refused"),
        ("tcp://no-such-host.invalid:7077".to_owned(), "GW1301", "cannot connect"),
        ("tcp://nothing".to_owned(), "GW1501", ""),
        ("http://x:1".to_owned(), "GW1501", ""),
        ("".to_owned(), "GW1501", ""),
        (format!("tcp://{own}:99999"), "GW1501", ""),
    ] {
        for command in ["migrate", "check"] {
            let mut arguments = vec!["--json", command, &pid];
            arguments.extend((command == "check").then_some("--to"));
            arguments.push(&target);
            assert_refused(&format!("{command} {target}"), &godwit(&pair.source, &arguments), &[codes], says);
        }
    }
    assert!(holder.switches() == before && holder.goes_on(), "nobody froze it");
}
