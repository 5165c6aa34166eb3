using NLog;
using Vmm.Boot;
using Vmm.Boot.Cache;
using Vmm.Cpu;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.VhostUser;
using Vmm.Machine;
using Vmm.Vhost.Memory;

namespace Vmm.Cli;

/// <summary>Turns the words of <see cref="RunOptions"/> into a <see cref="MachineConfig"/>.</summary>
internal static class RunOptionsReader
{
    /// <summary>The guest's memory where nothing is said.</summary>
    public const string DefaultMemory = "512M";

    /// <summary>The machine that <paramref name="options"/> ask for.</summary>
    /// <exception cref="UsageException">A value is wrong; the message names its option, the value and what is allowed.</exception>
    public static MachineConfig Read(RunOptions options)
    {
        (ulong memorySize, GuestMemoryOptions memory) = MemoryOption.Parse(options.Memory ?? DefaultMemory);
        (int cpus, CpuOptions cpu) = CpusOption.Parse(options.Cpus ?? "1");
        return new MachineConfig
        {
            Kernel = new KernelOptions
            {
                KernelPath = FilePath("--kernel", options.Kernel)!,
                InitramfsPath = FilePath("--initramfs", options.Initramfs),
                CommandLine = ReadCommandLine(options.CommandLine ?? ""),
                GuestDecompression = Choice.Parse(
                    new OptionValue("--decompress", null, options.Decompress ?? "host"), ("host", false), ("guest", true)),
                Cache = ReadCache(options.KernelCache),
                Entry = Choice.Parse(
                    new OptionValue("--entry", null, options.Entry ?? "auto"),
                    ("auto", KernelEntry.Auto), ("linux64", KernelEntry.Linux64), ("pvh", KernelEntry.Pvh)),
            },
            Cpus = cpus,
            Cpu = cpu,
            MemorySize = memorySize,
            Memory = memory,
            Serial = SerialOption.Parse(options.Serial ?? "tty"),
            Devices = ReadDevices(options, cpus),
            Discovery = Choice.Parse(
                new OptionValue("--virtio-discovery", null, options.VirtioDiscovery ?? "acpi"),
                ("acpi", VirtioDiscovery.Acpi), ("cmdline", VirtioDiscovery.CommandLine)),
            Interrupts = options.Interrupts is null ? null : Choice.Parse(
                new OptionValue("--interrupts", null, options.Interrupts), ("apic", InterruptHardware.Apic), ("pc", InterruptHardware.Pc)),
            OnReboot = Choice.Parse(
                new OptionValue("--on-reboot", null, options.OnReboot ?? "restart"),
                ("restart", RebootAction.Restart), ("exit", RebootAction.Exit)),
            ShutdownTimeout = options.ShutdownTimeout is null or "0" or "0s" ? TimeSpan.Zero : DurationValue.Parse(new OptionValue("--shutdown-timeout", null, options.ShutdownTimeout)),
            OnPanic = Choice.Parse(
                new OptionValue("--on-panic", null, options.OnPanic ?? "exit"), ("exit", PanicAction.Exit), ("halt", PanicAction.Halt)),
        };
    }

    /// <summary>What <paramref name="options"/> want logged.</summary>
    /// <exception cref="UsageException">The value is no log level.</exception>
    public static LogLevel ReadLogLevel(MachineOptions options) => LogLevelOption.Parse(options.LogLevel);

    private static VirtioDeviceOptions[] ReadDevices(RunOptions options, int cpus)
    {
        (string Option, VirtioDeviceOptions Device)[] named =
        [
            .. RepeatableOptions.Values(options.Net).Select(text => (NetOption.Name, NetOption.Parse(text))),
            .. RepeatableOptions.Values(options.Fs).Select(text => (FsOption.Name, (VirtioDeviceOptions)FsOption.Parse(text))),
            .. RepeatableOptions.Values(options.Disk).Select(text => (DiskOption.Name, (VirtioDeviceOptions)DiskOption.Parse(text, cpus))),
            .. One(VsockOption.Name, options.Vsock, VsockOption.Parse),
            .. One(RngOption.Name, options.Rng, RngOption.Parse),
            .. One(ConsoleOption.Name, options.Console, ConsoleOption.Parse),
            .. RepeatableOptions.Values(options.Scsi).Select(text => (ScsiOption.Name, (VirtioDeviceOptions)ScsiOption.Parse(text))),
            .. RepeatableOptions.Values(options.Vdpa).Select(text => (VdpaOption.Name, (VirtioDeviceOptions)VdpaOption.Parse(text))),
            .. RepeatableOptions.Values(options.VhostUser).Select(text => (VhostUserOption.Name, VhostUserOption.Parse(text))),
        ];
        RefuseSharedDescriptors(named);
        VirtioDeviceOptions[] devices = [.. named.Select(each => each.Device)];
        // A guest can mount only one of them.
        if (devices.OfType<FsDeviceOptions>().Where(fs => fs.Tag is not null).GroupBy(fs => fs.Tag).FirstOrDefault(same => same.Count() > 1) is { Key: string tag })
            throw new UsageException($"--fs: tag '{tag}' is given more than once: give each directory another tag");
        return devices.Length <= AddressMap.VirtioMmioSlots
            ? devices
            : throw new UsageException($"{NetOption.Name}, {FsOption.Name}, {DiskOption.Name} and the other devices: there are {devices.Length}, and a machine has room for "
                + $"{AddressMap.VirtioMmioSlots}: leave {devices.Length - AddressMap.VirtioMmioSlots} out");
    }

    private static (string Option, VirtioDeviceOptions Device)[] One(string option, string? text, Func<string, VirtioDeviceOptions> parse) =>
        text is null ? [] : [(option, parse(text))];

    // Each device closes its descriptors. Then their numbers are other files', and a second device with the same number would write into those.
    private static void RefuseSharedDescriptors((string Option, VirtioDeviceOptions Device)[] devices)
    {
        var owners = new Dictionary<int, string>();
        foreach ((string option, VirtioDeviceOptions device) in devices)
        {
            foreach (int number in device.InheritedDescriptors)
            {
                if (!owners.TryAdd(number, option))
                {
                    string owner = owners[number] == option ? $"another {option}" : owners[number];
                    throw new UsageException($"{option}: fd={number} is given to {owner}, too: each device needs a descriptor of its own");
                }
            }
        }
    }

    private static string ReadCommandLine(string text) =>
        KernelCommandLine.FindUnusable(text) is string problem ? throw new UsageException($"--cmdline: {problem}") : text;

    private static KernelCacheOptions? ReadCache(string? text) =>
        text is "off" ? null : new KernelCacheOptions(FilePath("--kernel-cache", text));

    private static string? FilePath(string option, string? path) =>
        path is not "" ? path : throw new OptionValue(option, null, path).Refuse("is not a path");
}
