using System.Buffers.Binary;
using System.Net;
using Vmm.Devices.Spawning;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Net;

/// <summary>passt, which makes a guest's connections its own and so needs no rights. It is on the other end of a wire of frames, and ends when that is
/// closed, however its starter ends.</summary>
/// <remarks>passt does not tell when it is ready. So it is sent an ARP request for the gateway's address: when it answers, it is ready.</remarks>
internal sealed class PasstProcess : IDisposable
{
    private const int Patience = 5000;          // milliseconds until it must have answered
    private const int Moment = 500;             // milliseconds that it takes at most to see that its wire was closed
    private const int MaxLine = 1024;
    private const int PrefixSize = sizeof(uint), FrameSize = 60, MacSize = 6;
    private const ushort EtherTypeArp = 0x0806, Ethernet = 1, Ipv4 = 0x0800, Request = 1;

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
        string program = PasstProgram.Require();
        UnixSocket? wire = null;
        PasstProcess? passt = null;
        try
        {
            (wire, UnixSocket other) = UnixSocket.Pair();
            using (other)
                passt = new PasstProcess(ChildProcess.Start(program, PasstProgram.Arguments(ports, HostRoutes.HasDefault, opensHost, ChildProcess.InheritedNumber), other));
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
        throw new VhostException($"passt ended with {_process.End}{reason}{PasstProgram.Advice(_lastLine)}");
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
