using System.Runtime.InteropServices;

namespace Vmm.Devices.Backends.Vsock;

/// <summary>Begins every packet on the data queues: struct virtio_vsock_hdr (VIRTIO 1.2 §5.10.6), 44 bytes, little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 4)]
internal record struct VsockHeader
{
    /// <summary>Its length on the wire.</summary>
    public const int WireSize = 44;

    /// <summary>The context id (CID) of the sender.</summary>
    public ulong SourceCid;

    /// <summary>The context id of the receiver.</summary>
    public ulong DestinationCid;

    /// <summary>The sender's port.</summary>
    public uint SourcePort;

    /// <summary>The receiver's port.</summary>
    public uint DestinationPort;

    /// <summary>Bytes of data that follow.</summary>
    public uint Length;

    /// <summary>The kind of the socket.</summary>
    public VsockType Type;

    /// <summary>The operation, such as a request for a connection, or data.</summary>
    public VsockOperation Operation;

    /// <summary>Of <see cref="VsockOperation.Shutdown"/>: which directions end.</summary>
    public VsockShutdown Flags;

    /// <summary>The sender's room for data, in bytes.</summary>
    public uint BufferAllocation;

    /// <summary>How much data the sender has taken out of that room so far, modulo 2^32.</summary>
    public uint ForwardCount;
}

/// <summary>Kinds of sockets (VIRTIO 1.2 §5.10.6.4).</summary>
internal enum VsockType : ushort
{
    /// <summary>VIRTIO_VSOCK_TYPE_STREAM.</summary>
    Stream = 1,
}

/// <summary>What a packet is about (VIRTIO 1.2 §5.10.6).</summary>
internal enum VsockOperation : ushort
{
    /// <summary>VIRTIO_VSOCK_OP_REQUEST: asks for a connection.</summary>
    Request = 1,

    /// <summary>VIRTIO_VSOCK_OP_RESPONSE: grants it.</summary>
    Response = 2,

    /// <summary>VIRTIO_VSOCK_OP_RST: there is no connection, or none any more.</summary>
    Reset = 3,

    /// <summary>VIRTIO_VSOCK_OP_SHUTDOWN.</summary>
    Shutdown = 4,

    /// <summary>VIRTIO_VSOCK_OP_RW: data.</summary>
    ReadWrite = 5,

    /// <summary>VIRTIO_VSOCK_OP_CREDIT_UPDATE: says nothing but what every packet says, how much room the sender has.</summary>
    CreditUpdate = 6,

    /// <summary>VIRTIO_VSOCK_OP_CREDIT_REQUEST: asks for that.</summary>
    CreditRequest = 7,
}

/// <summary>Directions that end (VIRTIO 1.2 §5.10.6.5).</summary>
[Flags]
internal enum VsockShutdown : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: the sender will receive no more data.</summary>
    Receive = 1,

    /// <summary>VIRTIO_VSOCK_SHUTDOWN_F_SEND: the sender will send no more data.</summary>
    Send = 2,

    /// <summary>Both.</summary>
    Both = Receive | Send,
}
