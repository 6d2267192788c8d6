use std::fs;
use std::path::Path;

use super::*;

const GIB: u64 = 1 << 30;

/// A made-up tree of control groups, as `/sys/fs/cgroup` shows them.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        Self(root)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The bounds of a process that may run on 16 processors of a host with 64 GiB, by its file `cgroup` and the mounts, each
    /// as its root, its place in the tree, its type and its options.
    fn bounds(&self, cgroups: &str, mounts: &[(&str, &str, &str, &str)]) -> ProcessBounds {
        let line = |(root, place, kind, options): &(&str, &str, &str, &str)| {
            let place = self.path().join(place);
            format!("31 24 0:27 {root} {} rw,nosuid shared:9 - {kind} {kind} {options}\n", place.display())
        };
        let groups = OwnGroups { cgroups: cgroups.into(), mountinfo: mounts.iter().map(line).collect() };
        ProcessBounds::of(&groups, 16, 64 * GIB)
    }
}

const FREE: ProcessBounds = ProcessBounds { processors: 16, cpu_percent: None, memory: None, cpuset: false };

/// As Slurm 22.05 nests them with `cgroup/v2`: bounds at the job and the step, processes in the task.
const SLURM_UNIFIED: &str = "system.slice/n1_slurmstepd.scope/job_7/step_0/user/task_0";

const UNIFIED: (&str, &str, &str, &str) = ("/", "", "cgroup2", "rw,nsdelegate");

fn slurm_unified(files: &[(&str, &str)]) -> ProcessBounds {
    let scope = "system.slice/n1_slurmstepd.scope";
    let below: Vec<(String, &str)> =
        files.iter().map(|(path, text)| (format!("{scope}/{path}"), *text)).collect();
    let below = below.iter().map(|(path, text)| (path.as_str(), *text));
    let root = [("cpuset.cpus.effective", "0-15"), ("cgroup.controllers", "cpuset cpu memory")];
    let tree = Tree::new(&root.into_iter().chain(below).collect::<Vec<_>>());
    tree.bounds(&format!("0::/{SLURM_UNIFIED}\n"), &[UNIFIED])
}

/// Mutations tried: without the groups above the process's own, and with the largest in place of the smallest.
#[test]
fn every_group_of_version_2_from_the_process_to_the_root_counts() {
    assert_eq!(slurm_unified(&[]), FREE);
    assert!(!FREE.come_from_groups());
    let step = slurm_unified(&[
        ("job_7/memory.max", "4294967296"),
        ("job_7/step_0/memory.max", "1073741824"),
        ("job_7/step_0/user/task_0/memory.max", "max"),
        ("job_7/cpuset.cpus.effective", "2-5"),
        ("job_7/step_0/cpuset.cpus.effective", "2,4"),
        ("job_7/step_0/user/task_0/cpuset.cpus.effective", "2,4"),
        ("job_7/cpu.max", "300000 100000"),
        ("job_7/step_0/user/task_0/cpu.max", "max 100000"),
    ]);
    let expected = ProcessBounds { processors: 2, cpu_percent: Some(300), memory: Some(GIB), cpuset: true };
    assert_eq!(step, expected);
    // Each alone keeps a tied box in its group.
    for one in [("job_7/memory.max", "4096"), ("job_7/cpu.max", "50000 100000")] {
        assert!(slurm_unified(&[one]).come_from_groups(), "{one:?}");
    }
    let processors = slurm_unified(&[("job_7/step_0/user/task_0/cpuset.cpus.effective", "3")]);
    assert_eq!(processors, ProcessBounds { processors: 1, cpuset: true, ..FREE });
    assert!(processors.come_from_groups());
    // More than the host has is no bound.
    assert_eq!(slurm_unified(&[("job_7/memory.max", "1099511627776")]), FREE);
}

/// As Slurm nests them with `cgroup/v1`: one tree for each controller, and a group for each node of several on one host.
#[test]
fn every_group_of_version_1_from_the_process_to_the_root_counts() {
    let memory = "slurm_n1/uid_1000/job_7/step_0/task_0";
    let cgroups = format!(
        "11:freezer:/slurm_n1/uid_1000/job_7/step_0\n5:cpu,cpuacct:/{memory}\n4:memory:/{memory}\n\
         3:cpuset:/slurm_n1/uid_1000/job_7/step_0\n1:name=systemd:/\n0::/\n"
    );
    let mounts = [
        ("/", "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
        ("/", "cpuset", "cgroup", "rw,cpuset"),
        ("/", "memory", "cgroup", "rw,memory"),
        ("/", "freezer", "cgroup", "rw,freezer"),
        ("/", "unified", "cgroup2", "rw"),
    ];
    let tree = Tree::new(&[
        ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ("memory/slurm_n1/uid_1000/job_7/memory.limit_in_bytes", "419430400"),
        ("memory/slurm_n1/uid_1000/job_7/step_0/memory.limit_in_bytes", "838860800"),
        ("cpuset/cpuset.cpus", "0-15"),
        ("cpuset/slurm_n1/uid_1000/job_7/cpuset.cpus", "0-3"),
        ("cpuset/slurm_n1/uid_1000/job_7/step_0/cpuset.cpus", "0,2-3"),
        ("cpu,cpuacct/cpu.cfs_quota_us", "-1"),
        ("cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ("cpu,cpuacct/slurm_n1/cpu.cfs_quota_us", "25000"),
        ("cpu,cpuacct/slurm_n1/cpu.cfs_period_us", "50000"),
    ]);
    let found = tree.bounds(&cgroups, &mounts);
    // Boxes' groups have no set of processors in version 1, so that of the engine stays with them wherever they go.
    let expected =
        ProcessBounds { processors: 3, cpu_percent: Some(50), memory: Some(400 << 20), cpuset: false };
    assert_eq!(found, expected);
    // Where only memory is mounted, the rest is not bounded.
    let memory = tree.bounds(&cgroups, &mounts[2..3]);
    assert_eq!(memory, ProcessBounds { memory: Some(400 << 20), ..FREE });
    // A kernel that tells what is left of a set once processors have gone off line.
    let file = tree.path().join("cpuset/slurm_n1/uid_1000/job_7/step_0/cpuset.effective_cpus");
    fs::write(file, "2\n").unwrap();
    assert_eq!(tree.bounds(&cgroups, &mounts).processors, 1);
}

/// Slurm's step in a container, and a controller of version 1 beside a hierarchy of version 2 without it.
#[test]
fn what_a_container_shows_of_the_hierarchy_counts() {
    let tree = Tree::new(&[
        ("cpuset.cpus.effective", "4-7"),
        ("memory.max", "2147483648"),
        ("job_7/step_0/memory.max", "max"),
        ("job_7/step_0/cpuset.cpus.effective", "4-7"),
        ("memory/memory.limit_in_bytes", "1073741824"),
    ]);
    let own_namespace = tree.bounds("0::/job_7/step_0\n", &[UNIFIED]);
    // The set is that of the whole container, which boxes' groups are in too.
    let expected = ProcessBounds { processors: 4, memory: Some(2 * GIB), ..FREE };
    assert_eq!(own_namespace, expected);
    let of_the_host = ("/docker/c1", "", "cgroup2", "rw");
    assert_eq!(tree.bounds("0::/docker/c1/job_7/step_0\n", &[of_the_host]), expected);
    let hybrid = [UNIFIED, ("/docker/c1", "memory", "cgroup", "rw,memory")];
    let both = tree.bounds("4:memory:/docker/c1\n0::/\n", &hybrid);
    assert_eq!(both.memory, Some(GIB), "the stricter of both");
}

#[test]
fn a_quota_is_read_in_both_forms_and_may_be_none() {
    assert_eq!(quota_of("150000 100000\n"), Some(150));
    assert_eq!(quota_of("500 100000\n"), Some(1), "less than a hundredth is no freedom");
    assert_eq!(quota_of("max 100000\n"), None);
    assert_eq!(quota_of("-1 100000"), None);
    for garbage in ["", "5", "0 100000", "1 0", "x y"] {
        assert_eq!(quota_of(garbage), None, "{garbage:?}");
    }
}

#[test]
fn the_kernel_s_lists_are_counted() {
    for (list, expected) in
        [("0\n", Some(1)), ("0-3", Some(4)), ("0-1,4,6-7\n", Some(5)), ("", None), ("3-1", None), ("x", None)]
    {
        assert_eq!(count_listed(list), expected, "{list:?}");
    }
    assert!(online_processors().is_some_and(|count| count > 0));
}

#[test]
fn this_process_has_a_processor() {
    assert!(ProcessBounds::measure().unwrap().processors >= 1);
}
