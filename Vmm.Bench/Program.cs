using System.Globalization;
using Vmm.Bench;

// vmm-bench blk SOCKET PID read|write DEPTH QUEUES DISK-BYTES SECONDS [sleep|spin]
// Drives a vhost-user block device by 4 KiB requests at random, and prints what RateBench says. A driver that spins never sleeps while it waits.
// vmm-bench fs SOCKET PID OPERATION DEPTH FILE-BYTES SECONDS [sleep|spin]
// Drives a virtio-fs daemon by FUSE requests (FuseRequests.Operations) for the file "data" and the files f0 to f999 of its directory.
// vmm-bench control SOCKET DISK-BYTES MESSAGES
// Connects to a block device and exchanges so many messages with it, and prints what ControlBench says.
try
{
    string? result = args switch
    {
        ["blk", var socket, var pid, "read" or "write", var depth, var queues, var bytes, var seconds, .. var way] when Spins(way) is bool spins =>
            RateBench.Block(socket, Number(pid), args[3] == "write", Number(depth), Number(queues), Size(bytes), Seconds(seconds), spins),
        ["fs", var socket, var pid, var operation, var depth, var bytes, var seconds, .. var way] when Spins(way) is bool spins && FuseRequests.Operations.Contains(operation) =>
            RateBench.Fuse(socket, Number(pid), operation, Number(depth), Size(bytes), Seconds(seconds), spins),
        ["control", var socket, var bytes, var messages] => ControlBench.Run(socket, Size(bytes), Number(messages)),
        _ => null,
    };
    if (result is not null)
    {
        Console.WriteLine(result);
        return 0;
    }
}
catch (FormatException)
{
    // the usage says it
}
Console.Error.WriteLine($"""
    usage: vmm-bench blk SOCKET PID read|write DEPTH QUEUES DISK-BYTES SECONDS [sleep|spin]
           vmm-bench fs SOCKET PID {string.Join('|', FuseRequests.Operations)} DEPTH FILE-BYTES SECONDS [sleep|spin]
           vmm-bench control SOCKET DISK-BYTES MESSAGES
    """);
return 2;

static bool? Spins(string[] way) => way switch
{
    [] or ["sleep"] => false,
    ["spin"] => true,
    _ => null,
};

static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);

static ulong Size(string text) => ulong.Parse(text, CultureInfo.InvariantCulture);

static double Seconds(string text) => double.Parse(text, CultureInfo.InvariantCulture);
