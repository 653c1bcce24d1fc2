//! Many at once.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::mounted::{Mounted, possible};

#[test]
fn appends_of_many_threads_to_a_lower_file_are_all_there() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/log", "start\n"));
    thread::scope(|scope| {
        for writer in 0..8 {
            let path = union.mnt("log");
            scope.spawn(move || {
                for line in 0..50 {
                    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                    file.write_all(format!("{writer} {line}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
    let text = union.read("mnt/log");
    assert_eq!(text.lines().count(), 401);
    for writer in 0..8 {
        assert!((0..50).all(|line| text.contains(&format!("\n{writer} {line}\n"))));
    }
    assert_eq!(union.read("ro1/log"), "start\n");
}

#[test]
fn first_writes_at_once_make_one_copy() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| u.write("ro1/big", vec![7; 32 << 20]));
    thread::scope(|scope| {
        for n in 0..8u64 {
            let path = union.mnt("big");
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &[n as u8], n * 1000).unwrap();
            });
        }
    });
    let bytes = fs::read(union.mnt("big")).unwrap();
    assert_eq!(bytes.len(), 32 << 20);
    assert!((0..8).all(|n| bytes[n * 1000] == n as u8 && bytes[n * 1000 + 1] == 7));
    assert_eq!(union.names("rw"), ["big"]);
}

#[test]
fn makers_movers_and_removers_do_not_disturb_one_another() {
    if !possible() {
        return;
    }
    let union = Mounted::three(|u| {
        for n in 0..50 {
            u.write(&format!("ro1/d{}/f{n}", n % 5), format!("{n}"));
        }
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for dir in fs::read_dir(union.path("mnt")).unwrap().flatten() {
                    if let Ok(entries) = fs::read_dir(dir.path()) {
                        entries.flatten().for_each(|e| drop(e.metadata()));
                    }
                }
            }
        });
        let workers: Vec<_> = (0..5)
            .map(|worker| {
                let union = &union;
                scope.spawn(move || {
                    let dir = format!("mnt/d{worker}");
                    for round in 0..20 {
                        let (a, b) = (format!("{dir}/a{round}"), format!("{dir}/b{round}"));
                        union.write(&a, &a);
                        fs::rename(union.path(&a), union.path(&b)).unwrap();
                        assert_eq!(union.read(&b), a);
                        if round % 2 == 0 {
                            fs::remove_file(union.path(&b)).unwrap();
                        }
                    }
                    for n in (worker..50).step_by(5) {
                        let path = union.path(&format!("{dir}/f{n}"));
                        match n % 3 {
                            0 => fs::remove_file(path).unwrap(),
                            1 => fs::write(path, "changed").unwrap(),
                            _ => fs::rename(&path, path.with_extension("moved")).unwrap(),
                        }
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
    for worker in 0..5 {
        let names = union.names(&format!("mnt/d{worker}"));
        let own = names.iter().filter(|name| name.starts_with('b')).count();
        assert_eq!(own, 10, "{names:?}");
        let low = (0..50).filter(|n| n % 5 == worker && n % 3 != 0).count();
        assert_eq!(names.len(), 10 + low, "{names:?}");
    }
    assert!(!union.names("rw").iter().any(|name| name.contains(".tmp")));
    assert_eq!(union.sh("find ro1 -type f | wc -l").trim(), "50");
}

#[test]
fn many_unions_share_their_lower_branches() {
    if !possible() {
        return;
    }
    let shared = Mounted::prepare(&["image"]);
    shared.write("image/f", "image");
    let image = shared.path("image");
    thread::scope(|scope| {
        for n in 0..10 {
            let image = &image;
            scope.spawn(move || {
                let mut union = Mounted::prepare(&["rw"]);
                union.mount(&format!("dirs=rw:{}", image.display()));
                fs::write(union.mnt("f"), format!("{n}")).unwrap();
                assert_eq!(union.read("mnt/f"), format!("{n}"));
                fs::remove_file(union.mnt("f")).unwrap();
            });
        }
    });
    assert_eq!(shared.read("image/f"), "image");
}
