using System.Buffers.Binary;
using System.Net;
using Vmm.Devices.Spawning;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>passt, which makes a guest's connections its own and so needs no rights. It is on the other end of a wire of frames, and ends when that is
/// closed, however its starter ends.</summary>
/// <remarks>Its options are those of 2023-03-09, which Debian 12 has. In place of a sign that it is ready it is asked who has the gateway's address.</remarks>
internal sealed class PasstProcess : IDisposable
{
    private const int Patience = 5000;          // milliseconds until it must have answered
    private const int Moment = 500;             // milliseconds that it takes at most to see that its wire was closed
    private const int MaxLine = 1024;
    private const int PrefixSize = sizeof(uint), FrameSize = 60, MacSize = 6;
    private const ushort EtherTypeArp = 0x0806, Ethernet = 1, Ipv4 = 0x0800, Request = 1;

    private const string GatewayMac = "02:00:00:00:00:02";      // not that of an interface, which lo has not
    private const string Routes = "/proc/net/route";

    private static readonly string[] s_programs = ["/usr/bin/passt", "/usr/local/bin/passt", "/run/current-system/sw/bin/passt"];
    // Of the guest, before it is there: locally administered.
    private static readonly byte[] s_asker = [0x02, 0, 0, 0, 0, 0x01];

    private static readonly BoundedLog s_log = new("Vmm.Devices.Net");

    private readonly ChildProcess _process;
    private readonly OutputLines _lines = new(MaxLine);
    private string _lastLine = "";

    private PasstProcess(ChildProcess process) => _process = process;

    /// <summary>What it says; <see cref="TryLog"/> takes it.</summary>
    public FileDescriptor Output => _process.Output;

    /// <summary>Starts it, and waits until it serves.</summary>
    /// <param name="ports">Where the host's ports lead into the guest.</param>
    /// <param name="opensHost">Whether the gateway's address is the host's 127.0.0.1 for the guest.</param>
    /// <returns>The process, and the other end of its wire.</returns>
    /// <exception cref="VhostException">It is not installed, or ends with an error, or says nothing.</exception>
    public static (PasstProcess Process, UnixSocket Wire) Start(IReadOnlyList<ForwardedPort> ports, bool opensHost)
    {
        string program = Array.Find(s_programs, File.Exists)
            ?? throw new VhostException($"there is no passt ({string.Join(", ", s_programs)}): install package passt");
        UnixSocket? wire = null;
        PasstProcess? passt = null;
        try
        {
            (wire, UnixSocket other) = UnixSocket.Pair();
            using (other)
                passt = new PasstProcess(ChildProcess.Start(program, Arguments(ports, HasDefaultRoute(Routes), opensHost), other));
            passt.WaitUntilReady(wire);
            return (passt, wire);
        }
        catch (Exception e)
        {
            wire?.Dispose();
            passt?.Dispose();
            if (e is ErrnoException)
                throw new VhostException($"passt: {e.Message}", e);
            throw;
        }
    }

    /// <summary>Its arguments, with its end of the wire as <see cref="ChildProcess.InheritedNumber"/>.</summary>
    /// <param name="ports">Where the host's ports lead into the guest.</param>
    /// <param name="hasDefaultRoute">Whether the host has one. passt would not start without; on the loopback interface it serves the host's own
    /// addresses and ports.</param>
    /// <param name="opensHost">Whether the gateway's address is the host's 127.0.0.1 for the guest.</param>
    public static string[] Arguments(IReadOnlyList<ForwardedPort> ports, bool hasDefaultRoute, bool opensHost)
    {
        List<string> arguments =
        [
            "--foreground", "--quiet", "--fd", $"{ChildProcess.InheritedNumber}", "--address", UserNetwork.Address, "--netmask", $"{UserNetwork.PrefixLength}",
            "--gateway", UserNetwork.Gateway, "--dns-forward", UserNetwork.Resolver, "--mtu", $"{UserNetwork.Mtu}",
            "--mac-addr", GatewayMac,
        ];
        // Programs that serve 127.0.0.1 trust whoever comes from there. The resolver works all the same: passt asks it itself.
        if (!opensHost)
            arguments.Add("--no-map-gw");
        if (!hasDefaultRoute)
            arguments.AddRange(["--ipv4-only", "--interface", "lo"]);
        foreach (ForwardedPort port in ports)
        {
            string address = port.Address.Equals(IPAddress.Any) ? "" : $"{port.Address}/";
            arguments.AddRange([port.IsUdp ? "--udp-ports" : "--tcp-ports", $"{address}{port.HostPort}:{port.GuestPort}"]);
        }
        return [.. arguments];
    }

    /// <summary>Whether the kernel's table of IPv4 routes has a default one: destination and mask are 0.</summary>
    /// <param name="path">The table.</param>
    public static bool HasDefaultRoute(string path)
    {
        const int destination = 1, mask = 7;
        return File.Exists(path) && File.ReadLines(path).Skip(1).Select(line => line.Split('\t', StringSplitOptions.TrimEntries))
            .Any(columns => columns.Length > mask && columns[destination] == "00000000" && columns[mask] == "00000000");
    }

    /// <summary>Logs what it has said.</summary>
    /// <returns>False at the end.</returns>
    public bool TryLog() => _lines.Read(Output, Say) == -Errnos.Eagain;

    /// <inheritdoc/>
    public override string ToString() => $"the wire to passt (process {_process.Id})";

    /// <summary>Ends it, if it has not ended with its wire; a confined process, which may not signal others, only waits a moment for that.</summary>
    public void Dispose()
    {
        _process.WaitForEnd(Moment);
        _process.Dispose();
    }

    private void Say(string said)
    {
        // A host without syslog has it complain of each line.
        string line = said.Trim();
        if (line.Length == 0 || line.EndsWith("to syslog", StringComparison.Ordinal))
            return;
        _lastLine = line;
        s_log.Debug("passt: {Line}", line);
    }

    private void WaitUntilReady(UnixSocket wire)
    {
        Span<byte> question = stackalloc byte[PrefixSize + FrameSize];
        WriteQuestion(question);
        if (wire.TrySend(question, []) == question.Length && HasAnswered(wire))
            return;
        _process.WaitForEnd(Patience);
        TryLog();
        _lines.End(Say);
        string reason = _lastLine.Length == 0 ? "" : $": {_lastLine}";
        string advice = _lastLine.Contains("Failed to bind", StringComparison.Ordinal) ? ": somebody has that port, or this user may not: give another port of the host" : "";
        throw new VhostException($"passt ended with {_process.End}{reason}{advice}");
    }

    // Whatever it says, it serves: the guest gets it. False: it has ended, or is about to.
    private bool HasAnswered(UnixSocket wire)
    {
        long deadline = Environment.TickCount64 + Patience;
        Span<PollEntry> entries = [new PollEntry(wire, PollEvents.Readable), new PollEntry(_process.Ended, PollEvents.Readable)];
        while (Poll.Wait(entries, (int)Math.Max(0, deadline - Environment.TickCount64)) == 0)
        {
            if (Environment.TickCount64 >= deadline)
                throw new VhostException($"passt does not answer within {Patience / 1000} s");
        }
        return (entries[0].Happened & PollEvents.HangUp) == 0 && (entries[1].Happened & PollEvents.Readable) == 0;
    }

    // An ARP request (RFC 826) for the gateway.
    private static void WriteQuestion(Span<byte> target)
    {
        target.Clear();
        BinaryPrimitives.WriteUInt32BigEndian(target, FrameSize);
        Span<byte> frame = target[PrefixSize..];
        frame[..MacSize].Fill(0xFF);
        s_asker.CopyTo(frame[MacSize..]);
        BinaryPrimitives.WriteUInt16BigEndian(frame[12..], EtherTypeArp);
        Span<byte> request = frame[14..];
        BinaryPrimitives.WriteUInt16BigEndian(request, Ethernet);
        BinaryPrimitives.WriteUInt16BigEndian(request[2..], Ipv4);
        request[4] = MacSize;
        request[5] = 4;
        BinaryPrimitives.WriteUInt16BigEndian(request[6..], Request);
        s_asker.CopyTo(request[8..]);
        IPAddress.Parse(UserNetwork.Address).GetAddressBytes().CopyTo(request[14..]);
        IPAddress.Parse(UserNetwork.Gateway).GetAddressBytes().CopyTo(request[24..]);
    }
}
