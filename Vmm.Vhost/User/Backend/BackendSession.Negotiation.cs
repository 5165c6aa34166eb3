using System.Runtime.InteropServices;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User.Backend;

/// <content>Features, the configuration space, status and reset.</content>
internal sealed partial class BackendSession
{
    private const VhostUserProtocolFeatures DevicesOwn =
        VhostUserProtocolFeatures.Rarp | VhostUserProtocolFeatures.Mtu | VhostUserProtocolFeatures.DeviceState
        | VhostUserProtocolFeatures.Shmem | VhostUserProtocolFeatures.InbandNotifications;

    private const VhostUserProtocolFeatures OnInflight =
        VhostUserProtocolFeatures.InflightShmFd | VhostUserProtocolFeatures.GetVringBaseInflight | VhostUserProtocolFeatures.GetVringBaseSkipDrain;

    private bool _meansCrosvmsShmem;

    private ulong OfferedFeatures =>
        _device.Features
        | VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | VirtioFeatures.RingPacked
        | VirtioFeatures.RingReset | VirtioFeatures.LogAll | VirtioFeatures.VhostUserProtocolFeatures
        | (_device.IsInOrder ? VirtioFeatures.InOrder : 0);

    private VhostUserProtocolFeatures OfferedProtocolFeatures
    {
        get
        {
            VhostUserProtocolFeatures features = (_device.ProtocolFeatures & DevicesOwn)
                | VhostUserProtocolFeatures.ReplyAck | VhostUserProtocolFeatures.BackendReq
                | VhostUserProtocolFeatures.BackendSendFd | VhostUserProtocolFeatures.ResetDevice
                | VhostUserProtocolFeatures.ConfigureMemSlots | VhostUserProtocolFeatures.Status | VhostUserProtocolFeatures.LogShmFd;
            // All front-ends take one pair of rings for granted where MQ is not offered. Some (cloud-hypervisor) compare GET_QUEUE_NUM
            // with the number of rings, and would refuse a single pair that is counted as 1.
            if (_device.RingsPerQueue == 1 || _rings.Length > _device.RingsPerQueue)
                features |= VhostUserProtocolFeatures.Mq;
            if (_device.ConfigSize > 0)
                features |= VhostUserProtocolFeatures.Config;
            if (_device.TracksInflight)
                features |= OnInflight;
            return features;
        }
    }

    private void SetFeatures(ulong features)
    {
        if ((features & ~OfferedFeatures) != 0)
            throw new RefusedException($"features 0x{features & ~OfferedFeatures:x} were not offered");
        // After a reset the device has forgotten them, even if they are the same again.
        ulong changed = _told is ulong old ? old ^ features : ulong.MaxValue;
        if ((changed & ~VirtioFeatures.LogAll) != 0)
            StopAll();
        else if (changed != 0)
            PauseAll();   // from here on what they write is logged, or not any more
        _features = _told = features;
        if ((changed & ~VirtioFeatures.LogAll) != 0)
            _device.FeaturesAccepted(features);
        // A front-end without the protocol features does not know SET_VRING_ENABLE: its rings are enabled from the beginning (vhost-user.rst, "Ring states").
        if ((features & VirtioFeatures.VhostUserProtocolFeatures) == 0)
        {
            foreach (RingSetup ring in _rings)
                ring.IsEnabled = true;
        }
        ResumeAll();
        StartAll();
    }

    private void SetProtocolFeatures(VhostUserProtocolFeatures features)
    {
        VhostUserProtocolFeatures extra = features & ~OfferedProtocolFeatures;
        if (extra != 0)
            throw new RefusedException($"protocol features 0x{(ulong)extra:x} were not offered");
        // crosvm has a feature of its own at this bit, SHMEM_MAP. It never accepts the in-flight log, without which the bit means nothing else.
        _meansCrosvmsShmem = (features & OnInflight) == VhostUserProtocolFeatures.GetVringBaseInflight;
        if (_meansCrosvmsShmem)
            features &= ~VhostUserProtocolFeatures.GetVringBaseInflight;
        Require(VhostUserProtocolFeatures.InbandNotifications, VhostUserProtocolFeatures.BackendReq | VhostUserProtocolFeatures.ReplyAck);
        Require(VhostUserProtocolFeatures.GetVringBaseInflight, VhostUserProtocolFeatures.InflightShmFd);
        Require(VhostUserProtocolFeatures.GetVringBaseSkipDrain, VhostUserProtocolFeatures.GetVringBaseInflight);
        _protocolFeatures = features;

        void Require(VhostUserProtocolFeatures feature, VhostUserProtocolFeatures needed)
        {
            if ((features & feature) != 0 && (features & needed) != needed)
                throw new ViolationException($"{feature} needs {needed}");
        }
    }

    private void GetConfig(VhostUserMessage message)
    {
        ConfigHeader header = CheckConfig(message, isHeaderEnough: true);
        if (header.Size == 0 || (ulong)header.Offset + header.Size > VhostUserHeader.MaxPayload - ConfigHeader.WireSize)
        {
            Reply(VhostUserRequest.GetConfig, []);   // how an error is told
            return;
        }
        // What lies behind the device's own is zero: a newer front-end knows more of it.
        byte[] config = new byte[VhostUserHeader.MaxPayload];
        _device.ReadConfig(config.AsSpan(0, _device.ConfigSize));
        byte[] reply = new byte[ConfigHeader.WireSize + header.Size];
        MemoryMarshal.Write(reply, in header);
        config.AsSpan((int)header.Offset, (int)header.Size).CopyTo(reply.AsSpan(ConfigHeader.WireSize));
        Reply(VhostUserRequest.GetConfig, reply);
    }

    private void SetConfig(VhostUserMessage message)
    {
        ConfigHeader header = CheckConfig(message, isHeaderEnough: false);
        if ((ulong)header.Offset + header.Size > (ulong)_device.ConfigSize)
            throw new RefusedException($"{header.Size} bytes at {header.Offset} are not in a configuration of {_device.ConfigSize}", isHarmless: true);
        if (!_device.WriteConfig((int)header.Offset, message.Payload[ConfigHeader.WireSize..]))
            throw new RefusedException($"{header.Size} bytes at {header.Offset} of the configuration cannot be written", isHarmless: true);
    }

    private static ConfigHeader CheckConfig(VhostUserMessage message, bool isHeaderEnough)
    {
        ConfigHeader header = message.Read<ConfigHeader>();
        int size = message.Payload.Length - ConfigHeader.WireSize;
        if (header.Size != (uint)size && !(isHeaderEnough && size == 0))
            throw new ViolationException($"{size} bytes of configuration come as {header.Size}");
        // 0, 1 (live migration) and 2: peers disagree about their meaning, and none changes what may be written.
        return header.Flags <= 2 ? header : throw new ViolationException($"flags 0x{header.Flags:x} are unknown");
    }

    private void SetStatus(ulong status)
    {
        if (status > byte.MaxValue)
            throw new RefusedException($"0x{status:x} is no device status");
        // QEMU also sends 0 when a VM only pauses. A front-end with RESET_DEVICE sends that when the driver resets the device.
        if (status == 0 && Has(VhostUserProtocolFeatures.ResetDevice))
            ResetRings();
        else if (status == 0)
            ResetDevice();
        _status = status;
    }

    private void ResetDevice()
    {
        bool[] isLeftOnPurpose = [.. _rings.Select(ring => ring.HasLeft && !ring.IsStarted)];
        ResetRings();
        foreach (RingSetup ring in _rings)
        {
            // The driver says where a ring begins again, not the log. A log with requests that were left on purpose, at GET_VRING_BASE, is kept.
            if (isLeftOnPurpose[ring.Index])
                continue;
            _inflight?.Forget(ring.Index, IsPacked);
            ring.HasLeft = false;
        }
        _status = 0;
        _told = null;
        _device.Reset();
    }

    private void SendRarp(VhostUserMessage message)
    {
        if (!_device.SendRarp(message.Payload[..6]))
            throw new RefusedException("the device cannot send a RARP", isHarmless: true);
    }

    private void SetMtu(ulong mtu)
    {
        if (mtu > ushort.MaxValue || !_device.SetMtu((int)mtu))
            throw new RefusedException($"an MTU of {mtu} cannot be used", isHarmless: true);
    }
}
