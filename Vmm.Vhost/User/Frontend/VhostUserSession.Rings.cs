using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Frontend;

/// <content>Rings. A ring has two states of its own: started by its kick and stopped by GET_VRING_BASE, and enabled or disabled
/// (vhost-user.rst, "Ring states"). Every method takes the number of a ring, 0 to 255. It throws <see cref="ArgumentOutOfRangeException"/> for
/// another number, and <see cref="VhostUserException"/> if the back-end refuses or is gone, or if the message was not agreed on.</content>
public sealed partial class VhostUserSession
{
    private const int MaxUnanswered = 32;

    /// <summary>SET_VRING_NUM: descriptors in a ring.</summary>
    /// <param name="ring">The ring, 0 to 255.</param>
    /// <param name="size">Descriptors, 1 to 32768.</param>
    /// <exception cref="ArgumentOutOfRangeException">The ring or the size is another number.</exception>
    /// <exception cref="VhostUserException">The back-end refused, or is gone.</exception>
    public void SetRingSize(int ring, int size)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, Virtqueue.RingLayout.MaxSize);
        Tell(VhostUserRequest.SetVringNum, Bytes(State(ring, (uint)size)));
    }

    /// <summary>SET_VRING_ADDR: where a ring is.</summary>
    /// <param name="address">The addresses; <see cref="VringAddress.Index"/> is the ring, 0 to 255.</param>
    /// <exception cref="ArgumentOutOfRangeException">The ring is another number.</exception>
    /// <exception cref="VhostUserException">The back-end refused, or is gone.</exception>
    public void SetRingAddress(in VringAddress address)
    {
        Ring((int)address.Index);
        Tell(VhostUserRequest.SetVringAddr, Bytes(in address));
    }

    /// <summary>SET_VRING_BASE: where the back-end begins in a ring: the index in the available ring, or for a packed ring bits 14:0 that
    /// of the available descriptor and bit 15 its wrap counter, and the same for used ones in the upper half.</summary>
    /// <inheritdoc cref="KickRing"/>
    public void SetRingBase(int ring, uint index) => Tell(VhostUserRequest.SetVringBase, Bytes(State(ring, index)));

    /// <summary>GET_VRING_BASE: stops a ring once all that was taken from it is done, and says where to begin again.</summary>
    /// <returns>What <see cref="SetRingBase"/> takes.</returns>
    /// <inheritdoc cref="KickRing"/>
    public uint GetRingBase(int ring) => StopRing(VhostUserRequest.GetVringBase, ring);

    /// <summary>Stops many rings at once: none waits until another has. SET_VRING_ENABLE 0 goes first, where there are protocol features, and then
    /// GET_VRING_BASE, without waiting for an answer in between; a back-end answers in the order in which it is asked.</summary>
    /// <param name="rings">The rings, 0 to 255, each once.</param>
    /// <param name="refused">Called for each ring that the back-end refuses to disable; it is stopped all the same. If it throws, the connection is
    /// ended: there are answers that nobody waits for any more.</param>
    /// <returns>Where to begin again in each, as <see cref="GetRingBase"/> says.</returns>
    /// <exception cref="ArgumentOutOfRangeException">A ring is another number. Nothing was sent.</exception>
    /// <exception cref="VhostUserException">The back-end refused to stop a ring, or is gone.</exception>
    public uint[] StopRings(ReadOnlySpan<int> rings, Action<VhostUserException>? refused = null)
    {
        foreach (int ring in rings)
            Ring(ring);
        var bases = new uint[rings.Length];
        lock (_request)
        {
            Check(VhostUserRequest.GetVringBase);
            bool isAcknowledged = Agreed(VhostUserProtocolFeatures.ReplyAck);
            int enabling = HasProtocolFeatures ? rings.Length : 0;   // as many messages come before those that stop
            int waiting = isAcknowledged ? 0 : enabling;             // the first that is answered, of those that are
            for (int next = 0; next < enabling + rings.Length; next++)
            {
                // A bound on what is under way: two that both wait for the other to read would wait for ever.
                if (next - waiting >= MaxUnanswered)
                    Take(waiting++, rings);
                bool disables = next < enabling;
                Send(
                    disables ? VhostUserRequest.SetVringEnable : VhostUserRequest.GetVringBase,
                    disables && isAcknowledged ? VhostUserFlags.NeedReply : 0,
                    Bytes(State(rings[next % rings.Length], 0)),
                    []);
            }
            while (waiting < enabling + rings.Length)
                Take(waiting++, rings);

            void Take(int message, ReadOnlySpan<int> rings)
            {
                int place = message % rings.Length;
                if (message >= enabling)
                {
                    bases[place] = TakeBase(VhostUserRequest.GetVringBase, rings[place], Reply(VhostUserRequest.GetVringBase, VringState.WireSize, VringState.WireSize));
                    return;
                }
                try
                {
                    Accept(VhostUserRequest.SetVringEnable, Reply(VhostUserRequest.SetVringEnable, PayloadSize.U64, PayloadSize.U64));
                }
                catch (VhostUserException e) when (!e.IsConnectionLost)
                {
                    CallBack(VhostUserRequest.SetVringEnable, () => refused?.Invoke(e));
                }
            }
        }
        return bases;
    }

    /// <summary>GET_VRING_BASE_SKIP_DRAIN: stops a ring at once; what is not done is in the in-flight log.</summary>
    /// <returns>What <see cref="SetRingBase"/> takes.</returns>
    /// <exception cref="VhostUserException">The back-end refused or is gone, or <see cref="VhostUserProtocolFeatures.GetVringBaseSkipDrain"/> was not agreed on.</exception>
    /// <inheritdoc cref="KickRing"/>
    public uint GetRingBaseWithoutDraining(int ring) => StopRing(VhostUserRequest.GetVringBaseSkipDrain, ring);

    /// <summary>SET_VRING_KICK: by what the driver kicks; the ring starts.</summary>
    /// <param name="ring">The ring, 0 to 255.</param>
    /// <param name="kick">An eventfd, which stays the caller's; null: the back-end polls the ring, also with
    /// <see cref="VhostUserProtocolFeatures.InbandNotifications"/>, where a ring that is only kicked by <see cref="KickRing"/> needs none of this.</param>
    /// <inheritdoc cref="KickRing"/>
    public void SetRingKick(int ring, FileDescriptor? kick) => SetRingDescriptor(VhostUserRequest.SetVringKick, ring, kick);

    /// <summary>SET_VRING_CALL: by what the driver is called.</summary>
    /// <param name="ring">The ring, 0 to 255.</param>
    /// <param name="call">An eventfd, which stays the caller's; null: the driver polls, or with
    /// <see cref="VhostUserProtocolFeatures.InbandNotifications"/> is called by message.</param>
    /// <inheritdoc cref="KickRing"/>
    public void SetRingCall(int ring, FileDescriptor? call) => SetRingDescriptor(VhostUserRequest.SetVringCall, ring, call);

    /// <summary>SET_VRING_ERR: by what the back-end says that it cannot go on with a ring; null for nothing.</summary>
    /// <inheritdoc cref="KickRing"/>
    public void SetRingError(int ring, FileDescriptor? error) => SetRingDescriptor(VhostUserRequest.SetVringErr, ring, error);

    /// <summary>SET_VRING_ENABLE: whether a started ring is worked. Where there are no protocol features, every started ring is.</summary>
    /// <exception cref="VhostUserException">The back-end refused or is gone, or protocol features were not agreed on.</exception>
    /// <inheritdoc cref="KickRing"/>
    public void SetRingEnabled(int ring, bool enabled)
    {
        NeedProtocolFeatures(VhostUserRequest.SetVringEnable);
        Tell(VhostUserRequest.SetVringEnable, Bytes(State(ring, enabled ? 1U : 0)));
    }

    /// <summary>SET_VRING_ENDIAN: the byte order of a legacy driver's ring.</summary>
    /// <inheritdoc cref="KickRing"/>
    public void SetRingEndian(int ring, bool bigEndian) =>
        Tell(VhostUserRequest.SetVringEndian, Bytes(State(ring, bigEndian ? 1U : 0)));

    /// <summary>VRING_KICK: a kick by message, for a ring that was given no eventfd.</summary>
    /// <param name="ring">The ring, 0 to 255.</param>
    /// <exception cref="ArgumentOutOfRangeException">The ring is another number.</exception>
    /// <exception cref="VhostUserException">The back-end refused or is gone, or the message was not agreed on.</exception>
    public void KickRing(int ring) => Tell(VhostUserRequest.VringKick, Bytes(State(ring, 0)));

    private void SetRingDescriptor(VhostUserRequest request, int ring, FileDescriptor? descriptor)
    {
        if (descriptor is null)
            Tell(request, Ring(ring) | VringDescriptor.NoFd);
        else
            Tell(request, Ring(ring), descriptor);
    }

    private uint StopRing(VhostUserRequest request, int ring) =>
        TakeBase(request, ring, Ask(request, Bytes(State(ring, 0)), VringState.WireSize, VringState.WireSize));

    private uint TakeBase(VhostUserRequest request, int ring, VhostUserMessage reply)
    {
        using (reply)
        {
            VringState state = reply.Read<VringState>();
            return state.Index == (uint)ring ? state.Num : throw Break(request, $"the peer answers for ring {state.Index} instead of {ring}");
        }
    }
}
