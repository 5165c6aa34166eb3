using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

// A migration in which memory follows while the back-end already works on it (vhost-user.rst, "Migration").
public sealed partial class VhostUserSession
{
    /// <summary>POSTCOPY_ADVISE: asks for the back-end's userfaultfd.</summary>
    /// <returns>The caller's to close.</returns>
    public FileDescriptor AdvisePostcopy()
    {
        NeedNoMemorySlots(VhostUserRequest.PostcopyAdvise);
        using VhostUserMessage reply = Ask(VhostUserRequest.PostcopyAdvise, default, 0, PayloadSize.U64, maxDescriptors: 1);
        return reply.TakeDescriptor() ?? throw Refused(VhostUserRequest.PostcopyAdvise, "no descriptor");
    }

    /// <summary>POSTCOPY_LISTEN: the back-end registers its memory with the userfaultfd when it is given it next.</summary>
    public void ListenPostcopy()
    {
        NeedNoMemorySlots(VhostUserRequest.PostcopyListen);
        Tell(VhostUserRequest.PostcopyListen, default(ReadOnlySpan<byte>));
    }

    /// <summary>SET_MEM_TABLE after <see cref="ListenPostcopy"/>.</summary>
    /// <param name="regions">As in <see cref="SetMemoryTable"/>.</param>
    /// <param name="files">The file of each.</param>
    /// <param name="register">Called with the same regions, whose user addresses are now those of the back-end: faults are handled
    /// from when it returns, and only then the back-end goes on. If it throws, the connection is ended: the back-end would wait for ever.</param>
    public void SetMemoryTablePostcopy(
        ReadOnlySpan<MemoryRegionPayload> regions, ReadOnlySpan<FileDescriptor> files, Action<MemoryRegionPayload[]> register)
    {
        Check(VhostUserRequest.PostcopyListen);
        byte[] table = MemoryTable(regions, files);
        lock (_request)
        {
            using VhostUserMessage reply = Ask(VhostUserRequest.SetMemTable, table, table.Length, table.Length, descriptors: files);
            if (reply.Read<MemoryTableHeader>().RegionCount != (uint)regions.Length)
                throw Break(VhostUserRequest.SetMemTable, "the peer's answer has another number of regions");
            MemoryRegionPayload[] theirs = MemoryMarshal.Cast<byte, MemoryRegionPayload>(reply.Payload[MemoryTableHeader.WireSize..]).ToArray();
            CallBack(VhostUserRequest.SetMemTable, () => register(theirs));
            // The one message that is answered by the front-end: it is told by the same number.
            Send(VhostUserRequest.SetMemTable, 0, Bytes(0UL), []);
        }
    }

    /// <summary>POSTCOPY_END: all memory is there.</summary>
    public void EndPostcopy()
    {
        NeedNoMemorySlots(VhostUserRequest.PostcopyEnd);
        if (AskNumber(VhostUserRequest.PostcopyEnd) is not 0 and var result)
            throw Refused(VhostUserRequest.PostcopyEnd, $"0x{result:x}");
    }

    private void NeedNoMemorySlots(VhostUserRequest request)
    {
        if (Agreed(VhostUserProtocolFeatures.ConfigureMemSlots))
            throw NotAgreed(request, $"it excludes {VhostUserProtocolFeatures.ConfigureMemSlots}, which was agreed on");
    }
}
