using CommandLine;

namespace Vmm.Cli;

/// <summary>The options that <c>vmm run</c> and <c>vmm exec</c> have both, as the user wrote them: the machine and its devices.</summary>
internal abstract class MachineOptions : IDirectOptions
{
    [Option("cpus", MetaValue = "N", HelpText = "Number of CPUs, 1 to 1024, or [boot=N][,profile=x86-64-v2|x86-64-v3|x86-64-v4] [,nested=on][,pmu=on][,amx=on] "
        + "(default: 1, with what this host's KVM lists, but for virtualisation, performance counters and AMX).")]
    public string? Cpus { get; set; }

    [Option("memory", MetaValue = "SIZE", HelpText = "Guest memory, 64M to 64T (K, M, G, T: powers of 1024), or "
        + "size=SIZE[,hugepages=on|off][,hugepage_size=SIZE][,prefault=on|off] (default: 512M on normal pages, given when touched; "
        + "huge pages are of 2M unless said otherwise).")]
    public string? Memory { get; set; }

    [Option(NetOption.Option, MetaValue = "DEVICE", HelpText = "A network device: tap=NAME, fd=N[:N...] for inherited tap or macvtap "
        + "descriptors, or tap for one that is made; or socket=PATH for a vhost-user switch; then "
        + "[,mac=MAC][,queues=PAIRS][,queue_size=N][,mtu=N]; or user[,mac=MAC][,port=HOST:GUEST[+...]][,host=on][,vhost_user=on|off] for this host's network by passt. "
        + "Repeatable.")]
    public virtual string? Net { get; set; }

    [Option(FsOption.Option, MetaValue = "DEVICE", HelpText = "A directory for the guest: tag=NAME,source=DIR[,readonly=on] "
        + "[,cache=auto|always|metadata|never] [,xattr=off][,privileged=off][,locks=guest][,submounts=off] [,owner=root], or tag=NAME,source=DIR,daemon=PATH[,sandbox=namespace|chroot] for another virtio-fs "
        + "daemon than ours, or tag=NAME,socket=PATH of one that runs; then [,queues=N][,queue_size=N][,dax=on], for ours also dax=inode|always|never. Repeatable.")]
    public string? Fs { get; set; }

    [Option(DiskOption.Option, MetaValue = "DEVICE", HelpText = "A disk: path=FILE[,direct=on][,logical_block_size=N][,lock=off] "
        + "[,discard=off][,serial=TEXT] for a raw image or a block device, or socket=PATH of a vhost-user back-end; then "
        + "[,queues=N][,queue_size=N][,readonly=on]. Repeatable.")]
    public string? Disk { get; set; }

    [Option(RngOption.Option, MetaValue = "DEVICE", HelpText = "Random numbers: src=/dev/urandom[,max_bytes_per_second=N].")]
    public string? Rng { get; set; }

    [Option(ScsiOption.Option, MetaValue = "DEVICE", HelpText = "The LUNs of a vhost target in configfs: wwpn=naa.HEX[,queues=N]. Repeatable.")]
    public string? Scsi { get; set; }

    [Option(VdpaOption.Option, MetaValue = "DEVICE", HelpText = "A vDPA device: path=/dev/vhost-vdpa-N[,queues=N]. Repeatable.")]
    public string? Vdpa { get; set; }

    [Option(VhostUserOption.Option, MetaValue = "DEVICE", HelpText = "Any device of a vhost-user back-end: type=TYPE,socket=PATH, where TYPE is fs, blk, net, scsi, vsock, rng, console, gpio, "
        + "i2c, input, gpu, snd, can or a number; then [,queues=N][,queue_size=N][,config=HEX|,config_size=N]; for fs also [,tag=NAME][,dax=on], for blk [,readonly=on], "
        + "for net [,mac=MAC][,mtu=N]. All that have socket=PATH take [,server=on], [,reconnect=off] and [,timeout=5s]; but for --net they take fd=N instead. Repeatable.")]
    public string? VhostUser { get; set; }

    [Option("virtio-discovery", MetaValue = "HOW", HelpText = "How the guest finds virtio devices: acpi, or cmdline (virtio_mmio.device=) for kernels "
        + "without ACPI (default: acpi).")]
    public string? VirtioDiscovery { get; set; }

    [Option("interrupts", MetaValue = "WHICH", HelpText = "The interrupt controllers and timers: apic, or pc, which has a PC's 8259s and 8254 too "
        + "(default: apic; pc with --virtio-discovery cmdline, and where --cmdline takes the APICs, their timer or ACPI away: nolapic_timer, nolapic, noapic, acpi=off and the like).")]
    public string? Interrupts { get; set; }

    [Option("decompress", MetaValue = "WHO", HelpText = "Who unpacks a bzImage: host (fast), or guest (default: host). Either way the kernel's addresses are "
        + "random, unless its command line says nokaslr.")]
    public string? Decompress { get; set; }

    [Option("kernel-cache", MetaValue = "off|DIR", HelpText = "Keep nothing of what a bzImage unpacks to, or keep it in a directory that only you may write to, "
        + "at most 256M for all kernels (default: vmm in $XDG_CACHE_HOME or ~/.cache).")]
    public string? KernelCache { get; set; }

    [Option("entry", MetaValue = "HOW", HelpText = "How an ELF kernel is entered: auto, linux64 or pvh (default: auto).")]
    public string? Entry { get; set; }

    [Option("force", HelpText = "Run a Linux kernel also where this host's KVM does not run Linux guests (vmm check says why).")]
    public bool Force { get; set; }

    [Option("sandbox", MetaValue = "on|off", HelpText = "Give up all that the guest's machine does not need, before the guest runs: files, privileges, "
        + "system calls (default: on).")]
    public string? Sandbox { get; set; }

    [Option("log-level", MetaValue = "LEVEL", HelpText = "What is logged to standard error: off, error, warn, info, debug or trace "
        + "(default: warn, or error by exec).")]
    public string? LogLevel { get; set; }

    [Value(0, Hidden = true)]
    public IEnumerable<string> Rest { get; set; } = [];

    /// <inheritdoc/>
    public virtual bool TrySet(string name, string value)
    {
        switch (name)
        {
            case "cpus":
                Cpus = value;
                break;
            case "memory":
                Memory = value;
                break;
            case NetOption.Option:
                Net = value;
                break;
            case FsOption.Option:
                Fs = value;
                break;
            case DiskOption.Option:
                Disk = value;
                break;
            case RngOption.Option:
                Rng = value;
                break;
            case ScsiOption.Option:
                Scsi = value;
                break;
            case VdpaOption.Option:
                Vdpa = value;
                break;
            case VhostUserOption.Option:
                VhostUser = value;
                break;
            case "virtio-discovery":
                VirtioDiscovery = value;
                break;
            case "interrupts":
                Interrupts = value;
                break;
            case "decompress":
                Decompress = value;
                break;
            case "kernel-cache":
                KernelCache = value;
                break;
            case "entry":
                Entry = value;
                break;
            case "log-level":
                LogLevel = value;
                break;
            case "sandbox":
                Sandbox = value;
                break;
            default:
                return false;
        }
        return true;
    }

    /// <inheritdoc/>
    public virtual bool TrySwitch(string name)
    {
        switch (name)
        {
            case "force":
                Force = true;
                break;
            default:
                return false;
        }
        return true;
    }
}
