using System.Diagnostics;
using System.Globalization;
using Vmm.Bench;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

// vmm-bench SOCKET PID read|write DEPTH QUEUES DISK-BYTES SECONDS [sleep|spin]
// Drives a vhost-user block device by 4 KiB requests at random, and prints: requests a second, CPU time of process PID in ns for each
// request, kicks and sleeps of the driver in percent of the requests. A driver that spins never sleeps while it waits.
// vmm-bench control SOCKET DISK-BYTES MESSAGES
// Connects to one and exchanges so many messages with it, and prints what ControlBench says.
if (args is ["control", string socket, string bytes, string messages])
{
    Console.WriteLine(ControlBench.Run(
        socket, ulong.Parse(bytes, CultureInfo.InvariantCulture), int.Parse(messages, CultureInfo.InvariantCulture)));
    return 0;
}
if (args.Length is not (7 or 8) || (args.Length == 8 && args[7] is not ("sleep" or "spin")))
{
    Console.Error.WriteLine("usage: vmm-bench SOCKET PID read|write DEPTH QUEUES DISK-BYTES SECONDS [sleep|spin], or vmm-bench control SOCKET DISK-BYTES MESSAGES");
    return 2;
}
int pid = int.Parse(args[1], CultureInfo.InvariantCulture);
bool isWrite = args[2] == "write";
int depth = int.Parse(args[3], CultureInfo.InvariantCulture);
int queues = int.Parse(args[4], CultureInfo.InvariantCulture);
ulong size = ulong.Parse(args[5], CultureInfo.InvariantCulture);
double seconds = double.Parse(args[6], CultureInfo.InvariantCulture);
bool spins = args.Length == 8 && args[7] == "spin";

using var memory = GuestMemory.Create([(new(0), 64 << 20)], new GuestMemoryOptions { Prefault = true });
using var frontEnd = new BenchFrontEnd(args[0]);
ulong features = frontEnd.Begin(
    VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | (1UL << 9) /* FLUSH */ | (1UL << 12) /* MQ */, memory);
if ((features & VirtioFeatures.EventIndex) == 0)
    throw new NotSupportedException("the back-end has no EVENT_IDX");

bool stop = false;
var rings = new BenchQueue[queues];
var threads = new Thread[queues];
for (int i = 0; i < queues; i++)
{
    BenchQueue ring = rings[i] = new BenchQueue(memory, i, depth, isWrite, size, spins);
    threads[i] = new Thread(() => ring.Run(() => Volatile.Read(ref stop)));
    frontEnd.Start(ring.Config);
}
foreach (Thread thread in threads)
    thread.Start();
Thread.Sleep(300);
(long Completed, long Kicks, long Sleeps) first = Sum();
long cpu = ProcessClock.CpuTime(pid);
long start = Stopwatch.GetTimestamp();
Thread.Sleep(TimeSpan.FromSeconds(seconds));
(long Completed, long Kicks, long Sleeps) last = Sum();
cpu = ProcessClock.CpuTime(pid) - cpu;
double elapsed = Stopwatch.GetElapsedTime(start).TotalSeconds;
Volatile.Write(ref stop, true);
for (int i = 0; i < queues; i++)
{
    threads[i].Join();
    frontEnd.Stop(i);
    rings[i].Dispose();
}
double completed = last.Completed - first.Completed;
Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
    $"{completed / elapsed:F0} {cpu / completed:F0} {100 * (last.Kicks - first.Kicks) / completed:F1} {100 * (last.Sleeps - first.Sleeps) / completed:F1}"));
return 0;

(long Completed, long Kicks, long Sleeps) Sum() =>
    (rings.Sum(ring => ring.Completed), rings.Sum(ring => ring.Kicks), rings.Sum(ring => ring.Sleeps));
