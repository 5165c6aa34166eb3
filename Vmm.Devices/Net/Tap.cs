using System.Buffers.Binary;
using Vmm.Vhost;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Net;

/// <summary>The host's end of a network device: the queues of a tap or macvtap interface (Linux Documentation/networking/tuntap.rst),
/// each packet with a virtio_net_hdr of 12 bytes before it.</summary>
internal sealed class Tap : IDisposable
{
    private const string DevicePath = "/dev/net/tun";
    private const string NewName = "vmtap%d";       // the kernel fills in a number
    private const int HeaderSize = 12;              // struct virtio_net_hdr_v1 (VIRTIO 1.2 §5.1.6)

    private static readonly BoundedLog s_log = new("Vmm.Devices.Net");

    private readonly List<FileDescriptor> _queues = [];
    private readonly NetworkSocket _control;

    private readonly string _option;
    private readonly string _key;

    private Tap(string option, string key)
    {
        _option = option;
        _key = key;
        _control = NetworkSocket.ForIoctls();
        Name = "";
    }

    /// <summary>The interface's name.</summary>
    public string Name { get; private set; }

    // What the messages about it begin with.
    private string Subject => $"{_option}: {_key}{Name}";

    /// <summary>The queues, all in use at first.</summary>
    public IReadOnlyList<FileDescriptor> Queues => _queues;

    /// <summary>Whether the administrator has set the interface up (IFF_UP), with or without a carrier. An interface in another network namespace
    /// cannot be asked, and counts as up.</summary>
    public bool IsUp
    {
        get
        {
            var request = new IfReq { Name = Name };
            return TryCall(_control, TunAbi.SiocGIfFlags, ref request) < 0 || (request.Flags & TunAbi.IffUp) != 0;
        }
    }

    /// <summary>Whether the interface was deleted; the descriptors then do nothing any more.</summary>
    public bool IsGone
    {
        get
        {
            IfReq request = default;
            return TryCall(_queues[0], TunAbi.TunGetIff, ref request) == -Errnos.Ebadfd;
        }
    }

    /// <summary>Its MTU; null while it is out of sight, in another network namespace.</summary>
    public int? Mtu
    {
        get
        {
            var request = new IfReq { Name = Name };
            return TryCall(_control, TunAbi.SiocGIfMtu, ref request) < 0 ? null : request.Mtu;
        }
    }

    /// <summary>Opens a tap interface, and sets it up where that is allowed.</summary>
    /// <param name="name">The interface, made if it is not there; null makes one with a name of the kernel's choice, which is logged.</param>
    /// <param name="queues">How many queues.</param>
    /// <param name="option">The option that messages begin with.</param>
    /// <param name="key">What stands before the interface's name in that option's value.</param>
    /// <exception cref="VhostException">It cannot be had; the message says what to do.</exception>
    public static Tap Open(string? name, int queues, string option = "--net", string key = "tap=")
    {
        var tap = new Tap(option, key);
        try
        {
            tap.Name = name ?? NewName;
            for (int i = 0; i < queues; i++)
                tap.OpenQueue(multiQueue: queues > 1);
            if (name is null)
                s_log.Info("{Option}: made the tap {Name}", option, tap.Name);
            tap.BringUp();
            return tap;
        }
        catch (Exception e)
        {
            tap.Dispose();
            if (e is ErrnoException error)
                throw new VhostException($"{tap.Subject}: {error.Message}", error);
            throw;
        }
    }

    /// <summary>Takes over descriptors that this process has inherited, one for each queue of one tap or macvtap interface.</summary>
    /// <exception cref="VhostException">One of them is no such thing; the message names it. All are closed.</exception>
    public static Tap Adopt(IReadOnlyList<int> fds)
    {
        var tap = new Tap("--net", "tap=");
        try
        {
            tap._queues.AddRange(fds.Select(fd => new FileDescriptor(fd)));
            for (int i = 0; i < fds.Count; i++)
                tap.AdoptQueue(fds[i], tap._queues[i]);
            return tap;
        }
        catch
        {
            tap.Dispose();
            throw;
        }
    }

    /// <summary>Has the kernel hand over packets that use <paramref name="features"/>: those of <see cref="NetFeatures.GuestOffloads"/>.</summary>
    /// <returns>Whether it can.</returns>
    public bool TrySetOffloads(ulong features)
    {
        uint offloads = 0;
        if ((features & NetFeatures.GuestCsum) != 0)
        {
            // The others build on partial checksums (VIRTIO 1.2 §5.1.3.1).
            offloads = TunAbi.TunFCsum;
            offloads |= (features & NetFeatures.GuestTso4) != 0 ? TunAbi.TunFTso4 : 0;
            offloads |= (features & NetFeatures.GuestTso6) != 0 ? TunAbi.TunFTso6 : 0;
            offloads |= (features & NetFeatures.GuestEcn) != 0 ? TunAbi.TunFTsoEcn : 0;
            offloads |= (features & NetFeatures.GuestUfo) != 0 ? TunAbi.TunFUfo : 0;
        }
        return Ioctl.TryCall(_queues[0], TunAbi.TunSetOffload, offloads) >= 0;
    }

    /// <summary>Has the interface spread packets over queue <paramref name="index"/> too, or no longer.</summary>
    /// <returns>Whether the kernel could do it.</returns>
    public bool TryUseQueue(int index, bool use)
    {
        var request = new IfReq { Flags = use ? TunAbi.IffAttachQueue : TunAbi.IffDetachQueue };
        return TryCall(_queues[index], TunAbi.TunSetQueue, ref request) >= 0;
    }

    /// <summary>Has the kernel drop what the guest does not want, as far as it can: a tap filters, a macvtap does not.</summary>
    /// <param name="filter">What the driver wants.</param>
    /// <param name="own">The device's address, which always passes.</param>
    public void SetFilter(ReceiveFilter filter, MacAddress own)
    {
        // struct tun_filter: flags, count, addresses; no address means no filter. Single addresses stand first.
        Span<byte> buffer = stackalloc byte[4 + (2 + ReceiveFilter.MaxAddresses) * MacAddress.Size];
        buffer.Clear();
        if (!filter.Promiscuous && filter.Addresses is { } addresses)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(buffer, filter.AllMulticast ? TunAbi.TunFltAllMulti : (ushort)0);
            BinaryPrimitives.WriteUInt16LittleEndian(buffer[2..], (ushort)(2 + addresses.Count));
            Span<byte> next = buffer[4..];
            foreach (MacAddress address in addresses.Append(own).Append(MacAddress.Broadcast).OrderBy(address => address.IsMulticast))
            {
                address.CopyTo(next);
                next = next[MacAddress.Size..];
            }
        }
        TryCall(_queues[0], TunAbi.TunSetTxFilter, ref buffer[0]);
    }

    /// <summary>Sets the largest packet, without Ethernet's header.</summary>
    /// <exception cref="VhostException">The interface cannot, or it is not ours.</exception>
    public void SetMtu(int mtu)
    {
        var request = new IfReq { Name = Name, Mtu = mtu };
        int result = TryCall(_control, TunAbi.SiocSIfMtu, ref request);
        if (result < 0)
        {
            throw new VhostException($"{Subject}: cannot set mtu={mtu}: "
                + new ErrnoException("ioctl(SIOCSIFMTU)", -result, $"as root: ip link set {Name} mtu {mtu}").Message);
        }
    }

    /// <summary>Closes the socket by which the interface is set up, and which reaches all interfaces and addresses: for a process that is about to be
    /// confined. <see cref="IsUp"/>, <see cref="Mtu"/> and <see cref="SetMtu"/> must not be used any more.</summary>
    public void CloseControl() => _control.Dispose();

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FileDescriptor queue in _queues)
            queue.Dispose();
        _control.Dispose();
    }

    private void OpenQueue(bool multiQueue)
    {
        FileDescriptor queue;
        try
        {
            queue = FileDescriptor.Open(DevicePath, OpenMode.ReadWrite);
        }
        catch (ErrnoException e)
        {
            string advice = e.Errno is Errnos.Eacces or Errnos.Eperm
                ? $"let your user open it: see ls -l {DevicePath}"
                : "load the kernel's module: modprobe tun";
            throw new VhostException($"{_option}: {e.Message}: {advice}", e);
        }
        _queues.Add(queue);
        int result = Attach(queue, multiQueue);
        if (result == -Errnos.Einval && !multiQueue)
            result = Attach(queue, multiQueue: true);   // one queue of a tap made for several is as good
        if (result < 0)
            throw Refused(-result, multiQueue);
        SetHeaderSize(queue);
    }

    private int Attach(FileDescriptor queue, bool multiQueue)
    {
        short flags = TunAbi.IffTap | TunAbi.IffNoPi | TunAbi.IffVnetHdr;
        var request = new IfReq { Name = Name, Flags = multiQueue ? (short)(flags | TunAbi.IffMultiQueue) : flags };
        int result = TryCall(queue, TunAbi.TunSetIff, ref request);
        if (result >= 0)
            Name = request.Name;
        return result;
    }

    private VhostException Refused(int errno, bool multiQueue)
    {
        string mode = multiQueue ? " multi_queue" : "";
        string advice = errno switch
        {
            Errnos.Eperm or Errnos.Eacces =>
                $"it is not yours: as root, ip tuntap add {(Name == NewName ? "vmtap0" : Name)} mode tap user $USER vnet_hdr{mode}, and name it by {_option} {_key}",
            Errnos.Ebusy => "another process uses it: give each guest a tap of its own",
            Errnos.Einval => multiQueue
                ? $"it is no tap, or one of a single queue: as root, ip link del {Name}, and ip tuntap add {Name} mode tap user $USER vnet_hdr{mode}"
                : "it is an interface, but no tap: choose another name",
            _ => "is it a tap?",
        };
        return new VhostException($"{Subject}: {new ErrnoException("ioctl(TUNSETIFF)", errno, advice).Message}");
    }

    private void AdoptQueue(int fd, FileDescriptor queue)
    {
        IfReq request = default;
        int result = TryCall(queue, TunAbi.TunGetIff, ref request);
        if (result >= 0)
            result = queue.TrySetCloseOnExec();
        if (result < 0)
        {
            throw new VhostException($"--net: fd={fd} is no open tap or macvtap: "
                + new ErrnoException("ioctl(TUNGETIFF)", -result, "let the caller open one and pass it on").Message);
        }
        if ((request.Flags & TunAbi.IffTap) == 0 || (request.Flags & TunAbi.IffVnetHdr) == 0 || (request.Flags & TunAbi.IffNoPi) == 0)
            throw new VhostException($"--net: fd={fd} ({request.Name}) must be opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR");
        if (Name.Length > 0 && Name != request.Name)
            throw new VhostException($"--net: fd={fd} is of {request.Name}, and the one before it of {Name}: all must be of one interface");
        Name = request.Name;
        SetHeaderSize(queue);
    }

    private void SetHeaderSize(FileDescriptor queue)
    {
        int size = HeaderSize, littleEndian = 1;
        int result = TryCall(queue, TunAbi.TunSetVnetHdrSz, ref size);
        if (result < 0)
            throw new VhostException($"{Subject}: {new ErrnoException("ioctl(TUNSETVNETHDRSZ)", -result, "it must have a virtio header").Message}");
        TryCall(queue, TunAbi.TunSetVnetLe, ref littleEndian);   // what x86 does anyhow
    }

    private void BringUp()
    {
        var request = new IfReq { Name = Name };
        if (TryCall(_control, TunAbi.SiocGIfFlags, ref request) < 0 || (request.Flags & TunAbi.IffUp) != 0)
            return;
        request.Flags |= TunAbi.IffUp;
        if (TryCall(_control, TunAbi.SiocSIfFlags, ref request) < 0)
            s_log.Warn("{Option}: {Name} is down, and only root may set it up: ip link set {Name} up", _option, Name, Name);
    }

    private static unsafe int TryCall<T>(FileDescriptor fd, in IoctlRequest request, ref T argument)
        where T : unmanaged
    {
        // SAFETY: pinned for the call, and as large as the request wants.
        fixed (T* pointer = &argument)
            return Ioctl.TryCall(fd, request, (nuint)pointer);
    }
}
