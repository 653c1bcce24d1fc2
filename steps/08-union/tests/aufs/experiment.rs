//! The experiment of the old courses, word for word: five directories, one
//! tree; append, delete, take the whiteout away.

use crate::mounted::{Mounted, possible};

fn five() -> Mounted {
    let mut union = Mounted::prepare(&[
        "container-layer",
        "image-layer1",
        "image-layer2",
        "image-layer3",
        "image-layer4",
    ]);
    union.write(
        "container-layer/container-layer.txt",
        "I am container layer\n",
    );
    for n in 1..=4 {
        let text = format!("I am image layer-{n}\n");
        union.write(&format!("image-layer{n}/image-layer{n}.txt"), text);
    }
    union.mount(
        "dirs=./container-layer:./image-layer4:./image-layer3:./image-layer2:./image-layer1",
    );
    union
}

#[test]
fn five_directories_are_one_tree() {
    if !possible() {
        return;
    }
    let union = five();
    assert_eq!(
        union.names("mnt"),
        [
            "container-layer.txt",
            "image-layer1.txt",
            "image-layer2.txt",
            "image-layer3.txt",
            "image-layer4.txt"
        ]
    );
}

#[test]
fn the_listing_gives_the_leftmost_rw_and_the_others_ro() {
    if !possible() {
        return;
    }
    let union = five();
    let home = union.path("").canonicalize().unwrap();
    let home = home.to_str().unwrap().trim_end_matches('/').to_owned();
    let output = union.run(&["branches", "./mnt"]);
    let listing = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = listing.lines().collect();
    assert_eq!(lines[0], format!("{home}/container-layer=rw"));
    assert_eq!(lines[1], format!("{home}/image-layer4=ro"));
    assert_eq!(lines[4], format!("{home}/image-layer1=ro"));
    assert_eq!(lines.len(), 5);
}

#[test]
fn what_is_appended_goes_to_a_copy_in_the_container_layer() {
    if !possible() {
        return;
    }
    let union = five();
    union.sh("printf \"\\nwrite to mnt's image-layer1.txt\\n\" >> ./mnt/image-layer4.txt");
    let both = "I am image layer-4\n\nwrite to mnt's image-layer1.txt\n";
    assert_eq!(union.read("mnt/image-layer4.txt"), both);
    assert_eq!(
        union.read("image-layer4/image-layer4.txt"),
        "I am image layer-4\n"
    );
    assert_eq!(union.read("container-layer/image-layer4.txt"), both);
    assert_eq!(
        union.names("container-layer"),
        ["container-layer.txt", "image-layer4.txt"]
    );
}

#[test]
fn a_deleted_file_is_whited_out_and_comes_back_without_the_whiteout() {
    if !possible() {
        return;
    }
    let union = five();
    union.sh("rm mnt/image-layer1.txt");
    assert!(!union.exists("mnt/image-layer1.txt"));
    assert!(union.exists("container-layer/.wh.image-layer1.txt"));
    assert_eq!(
        union.read("image-layer1/image-layer1.txt"),
        "I am image layer-1\n"
    );
    assert!(
        !union
            .names("mnt")
            .iter()
            .any(|name| name.starts_with(".wh."))
    );
    union.sh("rm container-layer/.wh.image-layer1.txt");
    assert_eq!(union.read("mnt/image-layer1.txt"), "I am image layer-1\n");
}
